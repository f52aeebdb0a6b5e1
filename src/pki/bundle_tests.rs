//! Union and retirement never strand a live certificate; chains of any depth verify.

use std::sync::OnceLock;

use proptest::prelude::*;
use time::Duration;

use super::authority::CertificateAuthority;
use super::bundle::TrustBundle;
use super::chain::{CertificateChain, Expectation};
use super::key::{KeyAlgorithm, PrivateKey};
use super::profile::{CaProfile, LeafProfile};
use super::testing::{NOW, client, key, openssl_verify, root, serial, server};

/// A root and a leaf of it that is known to live.
struct Trusted {
    root: TrustBundle,
    leaf: CertificateChain,
}

/// Four CAs, made once: keys cost time.
fn pool() -> &'static [Trusted] {
    static POOL: OnceLock<Vec<Trusted>> = OnceLock::new();
    POOL.get_or_init(|| {
        (0..4)
            .map(|n| {
                let ca = root(&format!("Root {n}"));
                let issued = ca.sign(&client(), key().public_key(), serial(n + 1), NOW);
                Trusted {
                    root: ca.anchors().clone(),
                    leaf: issued.unwrap().chain,
                }
            })
            .collect()
    })
}

fn bundle(picks: &[usize]) -> TrustBundle {
    TrustBundle::from_certificates(
        picks
            .iter()
            .flat_map(|pick| pool()[*pick].root.certificates().to_vec()),
    )
}

fn trusts(bundle: &TrustBundle, leaf: &CertificateChain) -> bool {
    leaf.verify(bundle, &Expectation::of(&client(), NOW))
        .is_ok()
}

fn picks() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(0_usize..4, 0..6)
}

#[test]
fn a_bundle_reads_what_it_writes_in_the_same_order() {
    let both = bundle(&[2, 0]);
    assert_eq!(TrustBundle::from_pem(&both.to_pem()).unwrap(), both);
    let names: Vec<String> = both
        .facts()
        .into_iter()
        .map(|facts| facts.subject)
        .collect();
    assert_eq!(names, ["CN=Root 2", "CN=Root 0"]);
    assert!(TrustBundle::from_pem("").is_err());
}

#[test]
fn of_a_ca_that_was_renewed_with_its_key_the_longer_life_stays() {
    let ca_key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let pem = ca_key.to_pem(super::key::KeyEncoding::Pkcs8);
    let of_days = |days| {
        let key = PrivateKey::from_pem(pem.expose()).unwrap();
        let profile = CaProfile::new("Renewed", Duration::days(days));
        CertificateAuthority::self_signed(&profile, key, serial(1), NOW).unwrap()
    };
    let (short, long) = (of_days(10), of_days(500));
    let union = short.anchors().union(long.anchors());
    assert_eq!(&union, long.anchors());
    assert_eq!(&long.anchors().union(short.anchors()), long.anchors());
}

#[test]
fn an_anchor_stays_while_a_live_certificate_needs_it_and_goes_with_the_last() {
    let [new, old] = [&pool()[0], &pool()[1]];
    let both = new.root.union(&old.root);
    let live = [new.leaf.clone(), old.leaf.clone()];
    let kept = both.retain_needed(&new.root, &live, NOW);
    assert_eq!((kept.kept, kept.retired.len()), (both.clone(), 0));
    let kept = both.retain_needed(&new.root, &live[..1], NOW);
    assert_eq!(kept.kept, new.root);
    assert_eq!(kept.retired[0].subject, "CN=Root 1");
    // An expired certificate needs nobody.
    let kept = both.retain_needed(&new.root, &live, NOW + Duration::days(100));
    assert_eq!(kept.kept, new.root);
}

#[test]
fn an_old_root_is_not_needed_by_a_leaf_that_the_new_one_vouches_for() {
    let (old, new) = (root("Old"), root("New"));
    let issued = new
        .sign(&client(), key().public_key(), serial(3), NOW)
        .unwrap();
    let cross = old.cross_sign(new.certificate(), serial(4), NOW).unwrap();
    let crossed = vec![issued.chain.leaf().clone(), cross];
    let live = [CertificateChain::from_certificates(crossed).unwrap()];
    let both = new.anchors().union(old.anchors());
    assert_eq!(
        &both.retain_needed(new.anchors(), &live, NOW).kept,
        new.anchors()
    );
}

proptest! {
    #[test]
    fn a_union_trusts_whom_either_trusts_and_puts_the_newer_first(a in picks(), b in picks()) {
        let (newer, older) = (bundle(&a), bundle(&b));
        let union = newer.union(&older);
        prop_assert!(union.contains_all(&newer) && union.contains_all(&older));
        prop_assert_eq!(&union.certificates()[..newer.len()], newer.certificates());
        prop_assert_eq!(&union.union(&older), &union);
        for trusted in pool() {
            let either = trusts(&newer, &trusted.leaf) || trusts(&older, &trusted.leaf);
            prop_assert_eq!(trusts(&union, &trusted.leaf), either);
        }
    }

    #[test]
    fn retirement_never_strands_a_live_certificate(all in picks(), pins in picks(), alive in picks()) {
        let (all, pinned) = (bundle(&all), bundle(&pins));
        let live: Vec<CertificateChain> =
            alive.iter().map(|pick| pool()[*pick].leaf.clone()).collect();
        let outcome = all.retain_needed(&pinned, &live, NOW);
        prop_assert!(all.contains_all(&outcome.kept));
        prop_assert_eq!(outcome.kept.len() + outcome.retired.len(), all.len());
        for leaf in &live {
            prop_assert_eq!(trusts(&outcome.kept, leaf), trusts(&all, leaf));
        }
        for (number, trusted) in pool().iter().enumerate() {
            if all.contains_all(&trusted.root) {
                let stays = pins.contains(&number) || alive.contains(&number);
                prop_assert_eq!(outcome.kept.contains_all(&trusted.root), stays);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn a_chain_of_any_depth_and_any_lives_is_believed_by_strangers(
        lives in proptest::collection::vec(2_i64..4000, 0..5),
        leaf_hours in 1_i64..40,
        label in "[a-z][a-z0-9]{0,20}",
    ) {
        let mut ca = root("Deep root");
        for (depth, days) in lives.iter().enumerate() {
            let most = (ca.facts().not_after - NOW).whole_days();
            let profile = CaProfile::new(format!("Level {depth}"), Duration::days((*days).min(most)));
            ca = ca.sign_ca(&profile, key(), serial(2), NOW).unwrap();
        }
        let profile = LeafProfile {
            dns_names: vec![format!("{label}.treasury.svc"), format!("*.{label}.svc")],
            lifetime: Duration::hours(leaf_hours),
            ..server()
        };
        let issued = ca.sign(&profile, key().public_key(), serial(3), NOW).unwrap();
        prop_assert_eq!(issued.chain.intermediates().len(), lives.len());
        prop_assert_eq!(&issued.anchors.facts()[0].subject, "CN=Deep root");
        issued.chain.verify(&issued.anchors, &Expectation::of(&profile, NOW)).unwrap();
        openssl_verify(&issued.chain, &issued.anchors, "sslserver", NOW).unwrap();
    }
}
