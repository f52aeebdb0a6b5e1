//! Paths as people have them: what is served and trusted is what webpki and OpenSSL accept.

mod readers;

use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

use self::readers::openssl_says;
use super::Defect;
use super::search::CAS_MAX;
use crate::pki::answer::{self, Answer, AnswerError};
use crate::pki::authority::{CaError, CertificateAuthority, Issued, SignError};
use crate::pki::bundle::TrustBundle;
use crate::pki::chain::{CertificateChain, Expectation, Verdict};
use crate::pki::key::{KeyEncoding, PrivateKey};
use crate::pki::pem::write_certificates;
use crate::pki::profile::LeafProfile;
use crate::pki::testing::{Forged, NOW, client, key, openssl_verify, serial, server};

type Der = CertificateDer<'static>;

fn root(name: &str, key: &PrivateKey) -> Der {
    Forged::ca(name, key, (name, key)).sign()
}

fn ca(name: &str, key: &PrivateKey, by: (&str, &PrivateKey)) -> Der {
    Forged::ca(name, key, by).sign()
}

fn load(
    certificates: &[&Der],
    key: &PrivateKey,
    roots: &[&Der],
) -> Result<CertificateAuthority, CaError> {
    let pem = |all: &[&Der]| write_certificates(all.iter().copied());
    let key = key.to_pem(KeyEncoding::Pkcs8);
    let roots = (!roots.is_empty()).then(|| pem(roots));
    CertificateAuthority::load(&pem(certificates), key.expose(), roots.as_deref())
}

fn sign_at(ca: &CertificateAuthority, now: OffsetDateTime) -> Result<Issued, SignError> {
    ca.sign(&server(), key().public_key(), serial(9), now)
}

/// Signs, and has both readers verify it.
fn accepted_at(ca: &CertificateAuthority, now: OffsetDateTime) -> Issued {
    let issued = sign_at(ca, now).unwrap();
    assert_accepted(&issued.chain, &issued.anchors, now);
    issued
}

fn accepted(ca: &CertificateAuthority) -> Issued {
    accepted_at(ca, NOW)
}

fn assert_accepted(chain: &CertificateChain, bundle: &TrustBundle, now: OffsetDateTime) {
    chain.verify_path(bundle, server().usage, now).unwrap();
    openssl_says(chain, bundle, now).unwrap();
}

/// Both readers refuse; what ours says.
fn refused(chain: &CertificateChain, bundle: &TrustBundle) -> Verdict {
    let verdict = chain.verify_path(bundle, server().usage, NOW).unwrap_err();
    let text = openssl_says(chain, bundle, NOW);
    assert!(text.is_err(), "OpenSSL accepts, and we say {verdict}");
    verdict
}

fn bundle(anchors: &[&Der]) -> TrustBundle {
    TrustBundle::from_certificates(anchors.iter().map(|der| (*der).clone()))
}

/// All orders of three.
fn orders<T: Copy>([a, b, c]: [T; 3]) -> [[T; 3]; 6] {
    [
        [a, b, c],
        [a, c, b],
        [b, a, c],
        [b, c, a],
        [c, a, b],
        [c, b, a],
    ]
}

/// An issuing CA below a new root, which a former root has cross-signed.
struct Crossed {
    keys: [PrivateKey; 3],
    issuing: Der,
    cross: Der,
    new: Der,
    old: Der,
}

impl Crossed {
    fn make() -> Self {
        let keys = [key(), key(), key()];
        let [below, new, old] = &keys;
        Self {
            issuing: ca("Issuing", below, ("New", new)),
            cross: ca("New", new, ("Old", old)),
            new: root("New", new),
            old: root("Old", old),
            keys,
        }
    }

    fn leaf(&self) -> Der {
        let ca = load(&[&self.issuing], &self.keys[0], &[&self.new]).unwrap();
        sign_at(&ca, NOW).unwrap().chain.leaf().clone()
    }
}

fn assemble(certificate: &[&Der], authorities: &[&Der]) -> Result<Answer, AnswerError> {
    let pem = |all: &[&Der]| write_certificates(all.iter().copied());
    answer::assemble(&pem(certificate), &[&pem(authorities)])
}

#[test]
fn a_cross_certificate_of_a_gone_root_does_not_hide_the_new_root_in_any_order() {
    let it = Crossed::make();
    for order in orders([&it.issuing, &it.cross, &it.new]) {
        let issued = accepted(&load(&order, &it.keys[0], &[]).unwrap());
        assert_eq!(issued.anchors, bundle(&[&it.new]));
        assert_eq!(
            issued.chain.intermediates(),
            std::slice::from_ref(&it.issuing)
        );
        let issued = accepted(&load(&[&it.issuing], &it.keys[0], &order[..]).unwrap());
        assert_eq!(issued.anchors, bundle(&[&it.new]));
    }
}

#[test]
fn the_answers_of_vault_and_acme_lead_to_the_root_that_is_there() {
    let it = Crossed::make();
    let leaf = it.leaf();
    let answers = [
        // Vault's ca_chain.
        assemble(&[&leaf], &[&it.issuing, &it.cross, &it.new]),
        // ACME's long chain, the new root in caBundle.
        assemble(&[&leaf, &it.issuing, &it.cross], &[&it.new]),
        assemble(&[&leaf], &[&it.cross, &it.new, &it.issuing]),
    ];
    for answer in answers {
        let answer = answer.unwrap();
        assert_eq!(answer.anchors, bundle(&[&it.new]));
        assert_eq!(answer.signer.subject, "CN=Issuing");
        assert_accepted(&answer.chain, &answer.anchors, NOW);
    }
    // ACME's long chain, the former root in caBundle: the cross-certificate is the way there.
    let long = assemble(&[&leaf, &it.issuing, &it.cross], &[&it.old]).unwrap();
    assert_eq!(long.anchors, bundle(&[&it.old]));
    assert_eq!(
        long.chain.intermediates(),
        [it.issuing.clone(), it.cross.clone()]
    );
    assert_accepted(&long.chain, &long.anchors, NOW);
    let missing = assemble(&[&leaf, &it.issuing, &it.cross], &[]).unwrap_err();
    assert!(
        matches!(&missing, AnswerError::RootMissing { subject, issuer } if subject == "CN=New" && issuer == "CN=Old"),
        "{missing}"
    );
    assert!(!missing.to_string().contains("caBundle"), "{missing}");
}

#[test]
fn with_both_roots_the_cross_certificate_is_served_to_clients_of_the_former() {
    let it = Crossed::make();
    let leaf = it.leaf();
    for order in orders([&it.cross, &it.new, &it.old]) {
        let all: Vec<&Der> = std::iter::once(&it.issuing).chain(order).collect();
        let answer = assemble(&[&leaf], &all).unwrap();
        assert_eq!(
            answer.chain.intermediates(),
            [it.issuing.clone(), it.cross.clone()]
        );
        assert_eq!(answer.anchors, bundle(&[&it.new, &it.old]));
        for roots in [
            bundle(&[&it.new]),
            bundle(&[&it.old]),
            bundle(&[&it.old, &it.new]),
            answer.anchors,
        ] {
            assert_accepted(&answer.chain, &roots, NOW);
        }
        let issued = accepted(&load(&all, &it.keys[0], &[]).unwrap());
        assert_accepted(&issued.chain, &bundle(&[&it.old]), NOW);
    }
}

#[test]
fn an_issuing_ca_that_two_roots_signed_serves_both_paths() {
    let (below, a, b) = (key(), key(), key());
    let (by_a, by_b) = (
        ca("Issuing", &below, ("A", &a)),
        ca("Issuing", &below, ("B", &b)),
    );
    let (root_a, root_b) = (root("A", &a), root("B", &b));
    let both = load(&[&by_a, &by_b, &root_a, &root_b], &below, &[]).unwrap();
    let issued = accepted(&both);
    assert_eq!(issued.chain.intermediates(), [by_a.clone(), by_b.clone()]);
    assert_eq!(issued.anchors, bundle(&[&root_a, &root_b]));
    // Only one root is there: the other certificate leads nowhere.
    for order in [[&by_a, &by_b], [&by_b, &by_a]] {
        let issued = accepted(&load(&order, &below, &[&root_b]).unwrap());
        assert_eq!(issued.chain.intermediates(), std::slice::from_ref(&by_b));
    }
    // Each signed the other.
    let cross = [ca("A", &a, ("B", &b)), ca("B", &b, ("A", &a))];
    let all = [&by_a, &cross[0], &cross[1], &root_a, &root_b];
    let issued = accepted(&load(&all, &below, &[]).unwrap());
    assert_accepted(&issued.chain, &bundle(&[&root_b]), NOW);
    let only = load(&all[..4], &below, &[]).unwrap();
    assert_eq!(accepted(&only).anchors, bundle(&[&root_a]));
}

#[test]
fn a_link_certificate_is_never_an_anchor() {
    let (new, old) = (key(), key());
    let link = ca("Bank", &new, ("Bank", &old));
    let (new_root, old_root) = (root("Bank", &new), root("Bank", &old));
    let alone = load(&[&link], &new, &[]).unwrap_err();
    let CaError::Refused(Defect::Link { certificate }) = &alone else {
        panic!("{alone}")
    };
    assert_eq!(certificate, "CN=Bank");
    assert!(matches!(
        load(&[&link], &new, &[&link]).unwrap_err(),
        CaError::Refused(Defect::Link { .. })
    ));
    // Below its former root it is an intermediate.
    let issued = accepted(&load(&[&link], &new, &[&old_root]).unwrap());
    assert_eq!(issued.chain.intermediates(), std::slice::from_ref(&link));
    assert_eq!(issued.anchors, bundle(&[&old_root]));
    for order in orders([&link, &new_root, &old_root]) {
        let issued = accepted(&load(&order, &new, &[]).unwrap());
        assert_eq!(issued.anchors, bundle(&[&new_root, &old_root]));
        assert_accepted(&issued.chain, &bundle(&[&old_root]), NOW);
        assert_accepted(&issued.chain, &bundle(&[&new_root]), NOW);
    }
    // A bundle that holds the link certificate alone trusts nothing to OpenSSL.
    let issued = accepted(&load(&[&new_root], &new, &[]).unwrap());
    let verdict = refused(&issued.chain, &bundle(&[&link]));
    assert!(
        matches!(verdict, Verdict::Defect(Defect::Link { .. })),
        "{verdict}"
    );
}

#[test]
fn a_ca_renewed_with_its_key_and_another_identifier_is_another_anchor() {
    let ca_key = key();
    let by = ("Bank", &ca_key);
    let of = |identifier: &'static [u8]| {
        Forged::ca("Bank", &ca_key, by)
            .identified(Some(identifier), Some(identifier))
            .sign()
    };
    let (sha1, sha256) = (of(b"by SHA-1"), of(b"by SHA-256"));
    let former = accepted(&load(&[&sha1], &ca_key, &[]).unwrap());
    let renewed = accepted(&load(&[&sha256], &ca_key, &[]).unwrap());
    let both = renewed.anchors.union(&former.anchors);
    assert_eq!(both.len(), 2);
    let live = [former.chain.clone(), renewed.chain.clone()];
    let kept = both.retain_needed(&renewed.anchors, &live, NOW);
    assert_eq!(kept.kept, both);
    for chain in &live {
        assert_accepted(chain, &both, NOW);
    }
    let verdict = refused(&former.chain, &renewed.anchors);
    let named = verdict.to_string();
    assert!(named.contains("authorityKeyIdentifier"), "{named}");
    // The last leaf that needs it takes it along.
    let kept = both.retain_needed(&renewed.anchors, &live[1..], NOW);
    assert_eq!(kept.kept, renewed.anchors);
    // An issuing CA below it says which one it means.
    let below = key();
    let issuing = Forged::ca("Issuing", &below, by)
        .identified(Some(b"below"), Some(b"by SHA-1"))
        .sign();
    let error = load(&[&issuing], &below, &[&sha256]).unwrap_err();
    assert!(
        matches!(error, CaError::Refused(Defect::KeyIdentifier { .. })),
        "{error}"
    );
    for roots in [[&sha1, &sha256], [&sha256, &sha1]] {
        accepted(&load(&[&issuing], &below, &roots).unwrap());
    }
}

#[test]
fn todays_root_and_its_successor_of_the_same_key_stay_both_and_the_valid_one_signs() {
    let ca_key = key();
    let of = |days| {
        Forged::ca("Bank", &ca_key, ("Bank", &ca_key))
            .living(days)
            .sign()
    };
    let (today, tomorrow) = (of((-300, 200)), of((1, 900)));
    for order in [[&today, &tomorrow], [&tomorrow, &today]] {
        let both = load(&order, &ca_key, &[]).unwrap();
        both.check_valid_at(NOW).unwrap();
        assert_eq!(both.facts_at(NOW).not_after, NOW + Duration::days(200));
        let issued = accepted(&both);
        assert_eq!(issued.anchors.len(), 2);
        // When both are valid, each can be used; then only the other is.
        for later in [2, 150, 500] {
            accepted_at(&both, NOW + Duration::days(later));
        }
    }
    let (expired, renewed) = (of((-900, -1)), of((-2, 900)));
    for order in [[&expired, &renewed], [&renewed, &expired]] {
        let both = load(&order, &ca_key, &[]).unwrap();
        accepted(&both);
        // Also below it, and where ca.crt has both.
        let below = key();
        let issuing = ca("Issuing", &below, ("Bank", &ca_key));
        accepted(&load(&[&issuing], &below, &order).unwrap());
        accepted(&load(&[order[0]], &ca_key, &order[1..]).unwrap());
    }
    let error = load(&[&expired], &ca_key, &[]).unwrap().check_valid_at(NOW);
    assert!(matches!(error, Err(CaError::Expired { .. })), "{error:?}");
    // A root that is about to end does not cut a leaf short that its successor can carry.
    let (ending, lasting) = (of((-900, 10)), of((-2, 900)));
    for order in [[&ending, &lasting], [&lasting, &ending]] {
        let issued = accepted(&load(&order, &ca_key, &[]).unwrap());
        assert!(!issued.clamped);
    }
}

#[test]
fn of_one_anchor_the_longer_life_stays_and_lives_that_overlap_stay_both() {
    let ca_key = key();
    let of = |days| bundle(&[&Forged::ca("B", &ca_key, ("B", &ca_key)).living(days).sign()]);
    let (short, long, later) = (of((-1, 10)), of((-1, 500)), of((5, 400)));
    let beyond = of((5, 900));
    assert_eq!(short.union(&long), long);
    assert_eq!(long.union(&later), long);
    assert_eq!(short.union(&beyond).len(), 2);
    assert!(short.union(&beyond).contains_all(&short));
    assert!(!beyond.contains_all(&short) && long.contains_all(&short));
}

fn ladder(n_cas: usize) -> (Vec<Der>, PrivateKey) {
    let mut keys = vec![key()];
    let mut path = vec![root("CA 0", &keys[0])];
    for depth in 1..n_cas {
        let (own, below) = (key(), format!("CA {}", depth - 1));
        let above = keys.last().unwrap();
        path.insert(0, ca(&format!("CA {depth}"), &own, (&below, above)));
        keys.push(own);
    }
    (path, keys.pop().unwrap())
}

#[test]
fn a_path_has_as_many_cas_as_the_limit_says_and_more_are_refused_not_cut() {
    for n_cas in [1, 2, 6, 7, CAS_MAX] {
        let (path, ca_key) = ladder(n_cas);
        let all: Vec<&Der> = path.iter().collect();
        let issued = accepted(&load(&all, &ca_key, &[]).unwrap());
        assert_eq!(issued.chain.intermediates().len(), n_cas - 1);
    }
    for n_cas in [CAS_MAX + 1, CAS_MAX + 2, 14] {
        let (path, ca_key) = ladder(n_cas);
        let all: Vec<&Der> = path.iter().collect();
        let error = load(&all, &ca_key, &[]).unwrap_err();
        let CaError::Refused(Defect::TooDeep { certificate, most }) = error else {
            panic!("{error}")
        };
        assert_eq!(
            (certificate, most),
            (format!("CN=CA {}", n_cas - 1), CAS_MAX)
        );
    }
}

#[test]
fn certificates_that_lead_everywhere_take_bounded_work() {
    // Twelve CAs of one name, each of which has signed each.
    let keys: Vec<PrivateKey> = (0..12).map(|_| key()).collect();
    let sign = |own, by| {
        Forged::ca("Maze", own, ("Maze", by))
            .identified(None, None)
            .sign()
    };
    let mut maze = Vec::new();
    for own in &keys {
        let others = keys.iter().filter(|by| !std::ptr::eq(*by, own));
        maze.extend(others.map(|by| sign(own, by)));
    }
    let maze: Vec<&Der> = maze.iter().collect();
    let begun = std::time::Instant::now();
    let error = load(&maze, &keys[0], &[]).unwrap_err();
    assert!(
        matches!(error, CaError::Refused(Defect::TooMany { .. })),
        "{error}"
    );
    assert!(begun.elapsed() < std::time::Duration::from_secs(10));
    // One root is found all the same.
    let root = sign(&keys[1], &keys[1]);
    let found = load(&maze, &keys[0], &[&root]).unwrap();
    assert_eq!(found.anchors(), &bundle(&[&root]));
}

#[test]
fn namesakes_without_identifiers_are_put_in_order_or_refused() {
    let (new, old) = (key(), key());
    let of = |ca_key| {
        Forged::ca("Bank", ca_key, ("Bank", ca_key))
            .identified(None, None)
            .sign()
    };
    let (new_root, old_root) = (of(&new), of(&old));
    for roots in [[&old_root, &new_root], [&new_root, &old_root]] {
        let issued = accepted(&load(&[&new_root], &new, &roots).unwrap());
        assert_eq!(issued.anchors, bundle(&[&new_root, &old_root]));
    }
    let leaf = |ca_key, ca_root| accepted(&load(&[ca_root], ca_key, &[]).unwrap());
    let (former, fresh) = (leaf(&old, &old_root), leaf(&new, &new_root));
    let wrong = former.anchors.union(&fresh.anchors);
    let verdict = refused(&fresh.chain, &wrong);
    assert!(
        matches!(verdict, Verdict::Defect(Defect::Namesake { .. })),
        "{verdict}"
    );
    let parts = [&fresh.anchors, &former.anchors];
    let only = [fresh.chain.clone()];
    let ordered = wrong.clone().ordered_for(&parts, &only, NOW).unwrap();
    assert_accepted(&fresh.chain, &ordered, NOW);
    // Both leaves live: no order is right.
    let live = [fresh.chain.clone(), former.chain.clone()];
    let error = wrong.ordered_for(&parts, &live, NOW).unwrap_err();
    assert_eq!(error.name, "CN=Bank");
    // With identifiers every order is.
    let (new_root, old_root) = (root("Bank", &new), root("Bank", &old));
    let (former, fresh) = (leaf(&old, &old_root), leaf(&new, &new_root));
    let live = [fresh.chain.clone(), former.chain.clone()];
    for both in [
        fresh.anchors.union(&former.anchors),
        former.anchors.union(&fresh.anchors),
    ] {
        let parts = [&fresh.anchors, &former.anchors];
        let same = both.clone().ordered_for(&parts, &live, NOW).unwrap();
        assert_eq!(same, both);
        for chain in &live {
            assert_accepted(chain, &both, NOW);
        }
    }
}

#[test]
fn a_leaf_of_a_client_is_judged_for_clients() {
    let ca_key = key();
    let ca = load(&[&root("Bank", &ca_key)], &ca_key, &[]).unwrap();
    let profile: LeafProfile = client();
    let issued = ca
        .sign(&profile, key().public_key(), serial(4), NOW)
        .unwrap();
    let wanted = Expectation::of(&profile, NOW);
    issued.chain.verify(&issued.anchors, &wanted).unwrap();
    openssl_verify(&issued.chain, &issued.anchors, "sslclient", NOW).unwrap();
}
