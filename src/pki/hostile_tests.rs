//! Documents come from anybody who may write a Secret, and chains from anybody who answers a probe:
//! nothing that is read makes us panic, whatever is wrong with it.

use std::sync::OnceLock;

use proptest::prelude::*;

use super::authority::CertificateAuthority;
use super::bundle::TrustBundle;
use super::chain::{CertificateChain, Expectation, KeyedChain};
use super::facts::{CertificateFacts, read_chain};
use super::key::{KeyEncoding, PrivateKey, PublicKey};
use super::testing::{NOW, key, root, serial, server};
use super::{csr, pem};

/// A CA certificate, a leaf, a key of each encoding and a request: label and DER.
fn originals() -> &'static [(String, Vec<u8>)] {
    static ORIGINALS: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    ORIGINALS.get_or_init(|| {
        let (ca, leaf_key) = (root("Target"), key());
        let issued = ca
            .sign(&server(), leaf_key.public_key(), serial(2), NOW)
            .unwrap();
        [
            ca.certificate_pem(),
            issued.chain.to_pem(),
            leaf_key.to_pem(KeyEncoding::Pkcs1).expose().clone(),
            leaf_key.to_pem(KeyEncoding::Pkcs8).expose().clone(),
            csr::request(&server(), &leaf_key).unwrap(),
        ]
        .iter()
        .map(|text| {
            let block = ::pem::parse(text).unwrap();
            (block.tag().to_owned(), block.into_contents())
        })
        .collect()
    })
}

/// Reads a document in every way that we have.
fn read_all_ways(text: &str) {
    let ca = root("Reader");
    let ca_key = ca.key().to_pem(KeyEncoding::Pkcs8);
    let _ = PrivateKey::from_pem(text);
    let _ = csr::read(text);
    let _ = read_chain(text);
    let _ = CertificateAuthority::load(text, ca_key.expose(), None);
    let _ = CertificateAuthority::load(&ca.certificate_pem(), text, Some(text));
    let _ = KeyedChain::new(text, ca_key.expose());
    if let (Ok(chain), Ok(bundle)) = (
        CertificateChain::from_pem(text),
        TrustBundle::from_pem(text),
    ) {
        let _ = chain.verify(&bundle, &Expectation::of(&server(), NOW));
        let _ = bundle
            .union(ca.anchors())
            .retain_needed(ca.anchors(), &[chain], NOW);
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_reader_panic(text in "(-----BEGIN [A-Z ]{0,20}-----)?[ -~\n]{0,200}") {
        read_all_ways(&text);
    }

    #[test]
    fn no_change_to_a_good_document_makes_a_reader_panic(
        which in 0_usize..5,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let (label, original) = &originals()[which];
        let mut der = original.clone();
        for (at, byte) in changes {
            let at = at.index(der.len());
            der[at] = byte;
        }
        if let Some(cut) = cut {
            der.truncate(cut.index(der.len()));
        }
        read_all_ways(&pem::write_block(label, &der));
        let _ = PublicKey::from_spki(&der);
        let _ = CertificateFacts::read(&der.into());
    }
}

#[test]
fn documents_beyond_the_limits_are_refused_unread() {
    let large = "x".repeat(pem::DOCUMENT_MAX_BYTES + 1);
    assert!(matches!(
        pem::read_certificates(&large),
        Err(pem::PemError::TooLarge { .. })
    ));
    let many = root("Target")
        .certificate_pem()
        .repeat(pem::CERTIFICATES_MAX + 1);
    assert_eq!(pem::read_certificates(&many), Err(pem::PemError::TooMany));
    let long = root("Target").certificate_pem().repeat(9);
    assert!(CertificateChain::from_pem(&long).is_err());
}
