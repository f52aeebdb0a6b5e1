//! How fast certificates are issued and read, on one core.
//!
//! `make bench` prints, for every kind of key:
//!
//! - *bare*: ring alone makes a key and signs 600 bytes with a P-256 CA key;
//! - *+ verify*: and verifies the signature, as everything that we issue is verified;
//! - *leaf*: what issuing does: key, profile, signature, proof of the key, path validation against the
//!   bundle that clients hold, PEM.
//!
//! Time is that of the core which the bench had, and bare and leaf take turns in the same run. Then 10,000 stored
//! certificates are read and judged for renewal; the limits are 200 ms and 2 KiB each.
//!
//! One core of a shared two-core virtual machine:
//!
//! ```text
//! key              bare/s   + verify/s     leaf/s  of bare of +verify
//! ECDSA P-256      23813        10134       7590      32%        75%
//! ECDSA P-384       1687         1534       1418      84%        92%
//! Ed25519          16747         8604       7956      48%        92%
//! RSA 2048                               35.2
//! RSA 3072                                8.1
//! RSA 4096                                4.5
//! 10000 stored certificates read and judged: 111 ms, 846 bytes each
//! ```
//!
//! A P-256 leaf cannot be had at 60 % of bare while it is verified, because ring needs longer to verify
//! than to make a key and sign (10134 against 23813); of bare operations that verify, it is at 75 %.

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
    EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey,
};
use rustix::time::{ClockId, clock_gettime};
use time::OffsetDateTime;
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2031-04-05 06:07:08 UTC);
/// Rounds of which the median is taken.
const ROUNDS: usize = 15;
/// Stored certificates that are judged.
const STORED: u32 = 10_000;

fn main() {
    let ca = authority();
    println!(
        "{:<12} {:>10} {:>12} {:>10} {:>8} {:>10}",
        "key", "bare/s", "+ verify/s", "leaf/s", "of bare", "of +verify"
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
        println!("{algorithm:<12} {:>34.1}", 1.0 / median(times.collect()));
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
    let bare = || {
        make_key(algorithm, &random);
        signer.sign(&random, black_box(&message)).unwrap()
    };
    let (mut alone, mut verified, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(timed(repeats, || {
            black_box(bare());
        }));
        verified.push(timed(repeats, || {
            public.verify(&message, bare().as_ref()).unwrap();
        }));
        whole.push(timed(repeats, || {
            black_box(leaf(ca, algorithm));
        }));
    }
    let (alone, verified, whole) = (median(alone), median(verified), median(whole));
    println!(
        "{algorithm:<12} {:>10.0} {:>12.0} {:>10.0} {:>7.0}% {:>9.0}%",
        1.0 / alone,
        1.0 / verified,
        1.0 / whole,
        100.0 * alone / whole,
        100.0 * verified / whole,
    );
}

/// A key that can sign, by ring alone.
fn make_key(algorithm: KeyAlgorithm, random: &SystemRandom) {
    let curve = match algorithm {
        KeyAlgorithm::EcdsaP384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
        KeyAlgorithm::Ed25519 => {
            let document = Ed25519KeyPair::generate_pkcs8(random).unwrap();
            black_box(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap());
            return;
        }
        _ => &ECDSA_P256_SHA256_ASN1_SIGNING,
    };
    let document = EcdsaKeyPair::generate_pkcs8(curve, random).unwrap();
    black_box(EcdsaKeyPair::from_pkcs8(curve, document.as_ref(), random).unwrap());
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
    let mut times = Vec::new();
    let mut held = 0;
    for _ in 0..5 {
        let started = core_seconds();
        let judged: Vec<Judged> = stored.iter().enumerate().map(judge).collect();
        times.push(core_seconds() - started);
        assert!(judged.iter().any(|one| one.is_due) && judged.iter().any(|one| !one.is_due));
        held = judged.iter().map(Judged::bytes).sum::<usize>() / judged.len();
    }
    let took = Duration::from_secs_f64(median(times));
    println!(
        "{STORED} stored certificates read and judged: {} ms, {held} bytes each",
        took.as_millis()
    );
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

impl Judged {
    /// What it holds on to.
    fn bytes(&self) -> usize {
        let facts = &self.facts;
        let text = [&facts.subject, &facts.issuer, &facts.serial, &facts.key];
        let lists = [&facts.dns_names, &facts.uris, &facts.email_addresses];
        let list = |list: &Vec<String>| {
            let strings: usize = list.iter().map(String::capacity).sum();
            strings + list.capacity() * size_of::<String>()
        };
        size_of::<Self>()
            + text.iter().map(|text| text.capacity()).sum::<usize>()
            + facts.common_name.as_ref().map_or(0, String::capacity)
            + lists.into_iter().map(list).sum::<usize>()
            + facts.ip_addresses.capacity() * size_of::<std::net::IpAddr>()
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
