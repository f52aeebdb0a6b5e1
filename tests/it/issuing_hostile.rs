//! The fuzz targets' entries, with their corpus, with changes of it, and with documents that are
//! made here: a bounded stand-in for `make fuzz`, which needs a nightly toolchain, in bounded memory.

#[path = "../../fuzz/entries.rs"]
mod entries;

use std::fs;
use std::path::Path;
use std::process::Command;

use bouncert::clock::Clock;
use bouncert::pki::authority::{CertificateAuthority, Serial};
use bouncert::pki::csr;
use bouncert::pki::key::{KeyAlgorithm, KeyEncoding, PrivateKey};
use bouncert::pki::profile::{CaProfile, LeafProfile, LeafUsage};
use proptest::prelude::*;

use crate::computing::computed;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let found: Vec<Vec<u8>> = fs::read_dir(root.join(target))
        .unwrap()
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    assert!(!found.is_empty());
    found
}

fn texts(target: &str) -> Vec<String> {
    let corpus = corpus(target).into_iter();
    let mut found: Vec<String> = corpus
        .map(|text| String::from_utf8(text).unwrap())
        .collect();
    if ["pem", "csr"].contains(&target) {
        found.extend(documents());
    }
    found
}

/// Good documents: changes of them get further than noise does.
fn documents() -> [String; 3] {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let pem = key.to_pem(KeyEncoding::Pkcs1).expose().clone();
    let leaf = LeafProfile::new(LeafUsage::Client, "stowaway");
    let request = csr::request(&leaf, &key).unwrap();
    let profile = CaProfile::new("Hold", time::Duration::days(9));
    let serial = Serial::from_random([1; 20]);
    let ca = CertificateAuthority::self_signed(&profile, key, serial, Clock::System.now());
    let certificate = ca.unwrap().certificate_pem();
    [format!("{certificate}{pem}"), certificate, request]
}

/// Runs `entry` on the corpus of a target, and on changes of it.
fn run(target: &str, entry: fn(&str)) {
    let corpus: Vec<Vec<char>> = texts(target)
        .iter()
        .map(|text| text.chars().collect())
        .collect();
    changed(&corpus, |text| entry(&text.iter().collect::<String>()));
}

/// Runs `entry` on documents, on changes of them and on their beginnings.
fn changed<T: Arbitrary + Clone + 'static>(corpus: &[Vec<T>], entry: impl Fn(&[T])) {
    for document in corpus {
        entry(document);
    }
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<T>()), 0..6);
    let which = any::<prop::sample::Index>();
    let config = ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(which in which, changes in changes, cut in any::<prop::sample::Index>())| {
        let mut document = which.get(corpus).clone();
        for (at, change) in changes {
            let at = at.index(document.len());
            document[at] = change;
        }
        entry(&document);
        entry(&document[..cut.index(document.len())]);
    });
}

#[test]
fn no_document_of_a_secret_makes_a_reader_panic() {
    run("pem", entries::pem);
}

#[test]
fn no_der_makes_a_reader_panic() {
    changed(&corpus("der"), entries::der);
}

#[test]
fn no_request_for_a_certificate_makes_a_reader_panic() {
    run("csr", entries::request);
}

#[test]
fn no_duration_makes_a_reader_panic() {
    run("duration", entries::duration);
}

#[test]
fn no_policy_makes_a_reader_panic() {
    run("policy", entries::policy);
}

#[test]
fn text_is_made_safe_whatever_it_is() {
    run("printable", entries::printable);
}

#[test]
fn files_for_pgbouncer_are_refused_or_read_as_they_are_written() {
    run("ini", entries::ini);
}

#[test]
fn a_projection_leaves_its_volume_in_no_case() {
    run("projection", entries::projection);
}

#[test]
fn a_patch_ends_within_the_bounds_of_objects() {
    run("patch", entries::patch);
}

/// The tests above once more, in a process that may have no more than half a gigabyte of addresses.
#[test]
fn no_document_takes_a_reader_beyond_half_a_gigabyte() {
    let output = Command::new("prlimit")
        .arg(format!("--as={}", 512 << 20))
        .arg(std::env::current_exe().unwrap())
        .args(["issuing_hostile::no_", "--test-threads=1"])
        .args(["--skip", "half_a_gigabyte"])
        .output()
        .expect("prlimit is installed");
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complaints}");
    assert!(said.contains("test result: ok. 5 passed"), "{said}");
}

#[test]
fn what_is_larger_than_any_secret_is_refused_without_being_copied() {
    let many = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".repeat(40_000);
    let begun = computed();
    entries::pem(&many);
    entries::request(&many);
    assert!(computed().saturating_sub(begun) < std::time::Duration::from_secs(2));
}
