//! How fast certificates are issued and read, on one core.
//!
//! `make bench` prints, for every kind of key:
//!
//! - *keygen+sign*: ring alone makes a key that can sign, and signs 600 bytes with a P-256 CA key;
//! - *path*: what ring has to do for a leaf: make a key, sign, and verify the signature;
//! - *leaf*: what issuing does: key, profile, signature, proof of the key, path validation against the
//!   bundle that clients hold, PEM;
//! - *bound*: what *path* reaches of *keygen+sign*; no leaf that is verified can reach more.
//!
//! Time is that of the core which the bench had, and all take turns in the same run. Then 10,000 stored
//! certificates are read and judged for renewal, in turns with signatures that ring verifies: a loaded
//! machine slows both. The bench fails above what 4,000 verifications take, which are 200 ms on a quiet
//! machine, or 2 KiB each. Memory is what the allocator gave and did not get back.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails as a test does, and prints its figures"
)]

use std::hint::black_box;
use std::time::Duration;

use bouncert::pki::authority::{CertificateAuthority, Serial};
use bouncert::pki::chain::{Expectation, KeyedChain, SecretData};
use bouncert::pki::facts::{CertificateFacts, read_chain};
use bouncert::pki::key::{KeyAlgorithm, KeyEncoding, PrivateKey};
use bouncert::pki::profile::{CaProfile, LeafProfile, LeafUsage};
use bouncert::pki::renewal::{RenewPolicy, jitter_seed, renew_at};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey,
};
use rustix::time::{ClockId, clock_gettime};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use time::OffsetDateTime;
use time::macros::datetime;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const NOW: OffsetDateTime = datetime!(2031-04-05 06:07:08 UTC);
/// Rounds of which the median is taken.
const ROUNDS: usize = 15;
/// Stored certificates that are judged, and what that may take.
const STORED: u32 = 10_000;
const JUDGING_MAX_VERIFICATIONS: f64 = 4_000.0;
const JUDGED_MAX_BYTES: usize = 2048;

fn main() {
    let ca = authority();
    println!(
        "key            keygen+sign/s    path/s    leaf/s   leaf of keygen+sign  bound  leaf of path"
    );
    for (algorithm, repeats) in [
        (KeyAlgorithm::EcdsaP256, 200),
        (KeyAlgorithm::EcdsaP384, 40),
        (KeyAlgorithm::Ed25519, 200),
    ] {
        compare(&ca, algorithm, repeats);
    }
    // ring makes no RSA keys, so there is nothing bare to compare with.
    for (algorithm, rounds) in [
        (KeyAlgorithm::Rsa2048, 9),
        (KeyAlgorithm::Rsa3072, 5),
        (KeyAlgorithm::Rsa4096, 3),
    ] {
        let times = (0..rounds).map(|_| timed(1, || drop(black_box(leaf(&ca, algorithm)))));
        println!("{algorithm:<12} {:>35.1}", 1.0 / median(times.collect()));
    }
    judge_stored(&ca);
}

fn compare(ca: &CertificateAuthority, algorithm: KeyAlgorithm, repeats: u32) {
    let random = SystemRandom::new();
    let signing = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let document = EcdsaKeyPair::generate_pkcs8(signing, &random).unwrap();
    let signer = EcdsaKeyPair::from_pkcs8(signing, document.as_ref(), &random).unwrap();
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, signer.public_key());
    let message = [7_u8; 600];
    let sign = || signer.sign(&random, black_box(&message)).unwrap();
    let (mut alone, mut path, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(timed(repeats, || {
            make_signer(algorithm, &random);
            black_box(sign());
        }));
        path.push(timed(repeats, || {
            make_key(algorithm, &random);
            public.verify(&message, sign().as_ref()).unwrap();
        }));
        whole.push(timed(repeats, || {
            black_box(leaf(ca, algorithm));
        }));
    }
    let (alone, path, whole) = (median(alone), median(path), median(whole));
    println!(
        "{algorithm:<12} {:>15.0} {:>9.0} {:>9.0} {:>20.0}% {:>5.0}% {:>12.0}%",
        1.0 / alone,
        1.0 / path,
        1.0 / whole,
        100.0 * alone / whole,
        100.0 * alone / path,
        100.0 * path / whole,
    );
}

/// A key by ring alone: what has to be done to have one certified.
fn make_key(algorithm: KeyAlgorithm, random: &SystemRandom) {
    if algorithm == KeyAlgorithm::Ed25519 {
        black_box(Ed25519KeyPair::generate_pkcs8(random).unwrap());
    } else {
        black_box(EcdsaKeyPair::generate_pkcs8(curve(algorithm), random).unwrap());
    }
}

/// A key that can sign, by ring alone.
fn make_signer(algorithm: KeyAlgorithm, random: &SystemRandom) {
    if algorithm == KeyAlgorithm::Ed25519 {
        let document = Ed25519KeyPair::generate_pkcs8(random).unwrap();
        black_box(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap());
    } else {
        let curve = curve(algorithm);
        let document = EcdsaKeyPair::generate_pkcs8(curve, random).unwrap();
        black_box(EcdsaKeyPair::from_pkcs8(curve, document.as_ref(), random).unwrap());
    }
}

fn curve(algorithm: KeyAlgorithm) -> &'static EcdsaSigningAlgorithm {
    match algorithm {
        KeyAlgorithm::EcdsaP384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
        _ => &ECDSA_P256_SHA256_ASN1_SIGNING,
    }
}

fn authority() -> CertificateAuthority {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let profile = CaProfile::new("Bench root", time::Duration::days(3650));
    CertificateAuthority::self_signed(&profile, key, Serial::from_random([1; 20]), NOW).unwrap()
}

fn server() -> LeafProfile {
    let names = [
        "*.ledger-pods.treasury.svc",
        "*.ledger-pods.treasury.svc.cluster.local",
        "*.ledger.treasury.svc",
        "ledger",
        "ledger.treasury.svc",
        "localhost",
    ];
    LeafProfile {
        dns_names: names.map(str::to_owned).to_vec(),
        ip_addresses: vec![[127, 0, 0, 1].into()],
        ..LeafProfile::new(LeafUsage::ServerAndClient, "ledger.treasury.svc")
    }
}

/// All that issuing does, but the API.
fn leaf(ca: &CertificateAuthority, algorithm: KeyAlgorithm) -> SecretData {
    let (profile, key) = (server(), PrivateKey::generate(algorithm).unwrap());
    let serial = Serial::from_random([2; 20]);
    let issued = ca.sign(&profile, key.public_key(), serial, NOW).unwrap();
    KeyedChain::from_parts(issued.chain, key, KeyEncoding::Pkcs1)
        .unwrap()
        .verify(&issued.anchors, &Expectation::of(&profile, NOW))
        .unwrap()
        .into_secret_data()
}

fn judge_stored(ca: &CertificateAuthority) {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let stored: Vec<String> = (0..STORED)
        .map(|number| {
            let profile = LeafProfile {
                lifetime: time::Duration::hours(1 + i64::from(number % 4000)),
                ..server()
            };
            let mut serial = [3; 20];
            serial[16..].copy_from_slice(&number.to_be_bytes());
            let serial = Serial::from_random(serial);
            let issued = ca.sign(&profile, key.public_key(), serial, NOW).unwrap();
            issued.chain.to_pem()
        })
        .collect();
    let (message, verify) = verification();
    let (mut times, mut verifications) = (Vec::new(), Vec::new());
    let mut held = 0;
    for _ in 0..5 {
        verifications.push(timed(400, || verify(&message)));
        let memory = Region::new(ALLOCATOR);
        let started = core_seconds();
        let judged: Vec<Judged> = stored.iter().enumerate().map(judge).collect();
        times.push(core_seconds() - started);
        let change = memory.change();
        assert!(judged.iter().any(|one| one.is_due) && judged.iter().any(|one| !one.is_due));
        // The facts hold text, so a measurement of nothing would show.
        assert!(judged.iter().all(|one| !one.facts.subject.is_empty()));
        held = (change.bytes_allocated - change.bytes_deallocated) / judged.len();
        assert!(held > size_of::<Judged>(), "the allocator did not see them");
    }
    let took_ms = median(times) * 1e3;
    let verified = took_ms / 1e3 / median(verifications);
    println!(
        "{STORED} stored certificates read and judged: {took_ms:.0} ms, as {verified:.0} verifications, \
         {held} bytes each"
    );
    assert!(
        verified <= JUDGING_MAX_VERIFICATIONS,
        "more than {JUDGING_MAX_VERIFICATIONS} verifications"
    );
    assert!(held <= JUDGED_MAX_BYTES, "more than {JUDGED_MAX_BYTES}");
}

/// A message, and a verification of its P-256 signature by ring alone.
fn verification() -> ([u8; 600], impl Fn(&[u8])) {
    let random = SystemRandom::new();
    let signing = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let document = EcdsaKeyPair::generate_pkcs8(signing, &random).unwrap();
    let signer = EcdsaKeyPair::from_pkcs8(signing, document.as_ref(), &random).unwrap();
    let message = [7_u8; 600];
    let signature = signer.sign(&random, &message).unwrap();
    let public = signer.public_key().as_ref().to_vec();
    let verify = move |message: &[u8]| {
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &public);
        public.verify(message, signature.as_ref()).unwrap();
    };
    (message, verify)
}

/// A stored certificate, and whether it is to be renewed.
struct Judged {
    facts: CertificateFacts,
    is_due: bool,
}

fn judge((number, pem): (usize, &String)) -> Judged {
    let facts = read_chain(pem).unwrap().remove(0);
    let seed = jitter_seed(&format!("treasury/ledger-{number}/server"));
    let due = renew_at(
        facts.not_before,
        facts.not_after,
        RenewPolicy::TwoThirds,
        seed,
    );
    Judged {
        is_due: due <= NOW + time::Duration::days(30),
        facts,
    }
}

/// Seconds of one repeat.
fn timed(repeats: u32, mut act: impl FnMut()) -> f64 {
    let started = core_seconds();
    for _ in 0..repeats {
        act();
    }
    (core_seconds() - started) / f64::from(repeats)
}

/// What this thread has had of a core: other programs do not count.
fn core_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        spent.tv_sec.try_into().unwrap(),
        spent.tv_nsec.try_into().unwrap(),
    )
    .as_secs_f64()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
