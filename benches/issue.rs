//! What issuing costs: a key, a signature, and the proof that a stranger accepts the chain.
//!
//! Run it with `cargo bench`. Each line is the median of a number of runs, because key generation,
//! of RSA above all, takes as long as luck has it.

#![expect(clippy::unwrap_used, reason = "a benchmark fails as tests do")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

use std::time::{Duration, Instant};

use bouncert::clock::Clock;
use bouncert::pki::authority::{CertificateAuthority, Serial};
use bouncert::pki::chain::{Expectation, KeyedChain};
use bouncert::pki::key::{KeyAlgorithm, KeyEncoding, PrivateKey};
use bouncert::pki::profile::{CaProfile, LeafProfile, LeafUsage};

fn main() {
    let now = Clock::System.now();
    let life = time::Duration::days(30);
    let ca_key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let profile = CaProfile::new("bench", life * 2);
    let serial = || Serial::from_random([7; 20]);
    let ca = CertificateAuthority::self_signed(&profile, ca_key, serial(), now).unwrap();
    for (name, algorithm, runs) in [
        ("ECDSA P-256", KeyAlgorithm::EcdsaP256, 200),
        ("Ed25519", KeyAlgorithm::Ed25519, 200),
        ("RSA-2048", KeyAlgorithm::Rsa2048, 15),
    ] {
        let took = median(runs, || {
            let key = PrivateKey::generate(algorithm).unwrap();
            let mut leaf = LeafProfile::new(LeafUsage::ServerAndClient, "pooler.harbour.svc");
            leaf.dns_names = vec!["pooler.harbour.svc".to_owned()];
            leaf.lifetime = life;
            let issued = ca.sign(&leaf, key.public_key(), serial(), now).unwrap();
            let keyed = KeyedChain::from_parts(issued.chain, key, KeyEncoding::Pkcs8).unwrap();
            let expected = Expectation::of(&leaf, now);
            keyed.verify(&issued.anchors, &expected).unwrap();
        });
        println!("issue and verify, {name:<12} {took:>12.1?} (median of {runs})");
    }
}

fn median(runs: usize, mut run: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let begun = Instant::now();
            run();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[runs / 2]
}
