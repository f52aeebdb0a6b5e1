//! Certificate signing requests (PKCS#10, RFC 2986): made for issuers elsewhere, and read with proof
//! that whoever asks has the key.

use super::der::{self, Reader};
use super::facts;
use super::key::{KeyError, PrivateKey, PublicKey};
use super::pem::{self, Block, Label, PemError};
use super::profile::{LeafProfile, ProfileError};
use super::signature::Signed;
use super::{oid, tbs};

/// A request whose signature was checked: who asks, has the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificationRequest {
    /// The subject, as RFC 4514 writes names.
    pub subject: String,
    /// The key that a certificate is asked for.
    pub public_key: PublicKey,
}

/// Why there is no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// What is asked for breaks a rule.
    #[error("the certificate asked for is not possible")]
    Profile(#[from] ProfileError),
    /// The key cannot be used.
    #[error("the key of the request cannot be used")]
    Key(#[from] KeyError),
    /// The document is no PEM.
    #[error("cannot read the certificate request")]
    Document(#[from] PemError),
    /// Broken inside.
    #[error("the certificate request is damaged: its encoding breaks off or is not DER")]
    Malformed,
    /// The signature is not by the key inside.
    #[error("{subject} did not prove to have the key: the request's signature does not fit")]
    NoProof {
        /// The subject.
        subject: String,
    },
}

/// Asks, as a PEM document, for what `profile` states; lifetime and serial number are not part of a
/// request.
pub fn request(profile: &LeafProfile, key: &PrivateKey) -> Result<String, CsrError> {
    profile.check()?;
    let subject = tbs::name(profile.common_name.as_deref(), &profile.subject);
    let asked = LeafProfile {
        usage: profile.usage.asked(),
        ..profile.clone()
    };
    let extensions = tbs::leaf_extensions(&asked, key.kind());
    assemble(&subject, &[extension_request(&extensions)], key)
}

/// The attribute that asks for extensions.
pub(crate) fn extension_request(extensions: &[Vec<u8>]) -> Vec<u8> {
    let extensions: Vec<&[u8]> = extensions.iter().map(Vec::as_slice).collect();
    der::sequence(&[
        &der::oid(oid::EXTENSION_REQUEST),
        &der::element(der::SET, &[&der::sequence(&extensions)]),
    ])
}

/// Signs a request for `subject` with those attributes, and writes it.
pub(crate) fn assemble(
    subject: &[u8],
    attributes: &[Vec<u8>],
    key: &PrivateKey,
) -> Result<String, CsrError> {
    let attributes: Vec<&[u8]> = attributes.iter().map(Vec::as_slice).collect();
    let information = der::sequence(&[
        &der::unsigned(&[0]),
        subject,
        key.public_key_der(),
        &der::element(der::explicit(0), &attributes),
    ]);
    let signature = der::bit_string(&key.sign(&information)?);
    let algorithm = key.public_key().signature_algorithm();
    let request = der::sequence(&[&information, &algorithm, &signature]);
    Ok(pem::write_block("CERTIFICATE REQUEST", &request))
}

/// Reads a PEM document with a request, and has the asker prove possession of the key.
pub fn read(text: &str) -> Result<CertificationRequest, CsrError> {
    let block = block(text)?;
    let malformed = |_| CsrError::Malformed;
    let mut outer = Reader::new(block.contents())
        .enter(der::SEQUENCE)
        .map_err(malformed)?;
    let mut information = outer.enter(der::SEQUENCE).map_err(malformed)?;
    information.read(der::INTEGER).map_err(malformed)?;
    let name = information.read_whole(der::SEQUENCE).map_err(malformed)?;
    let spki = information.read_whole(der::SEQUENCE).map_err(malformed)?;
    let subject = facts::name_text(name).ok_or(CsrError::Malformed)?;
    if !Signed::read(block.contents())
        .map_err(malformed)?
        .is_by(spki)
    {
        return Err(CsrError::NoProof { subject });
    }
    Ok(CertificationRequest {
        subject,
        public_key: PublicKey::from_spki(spki)?,
    })
}

/// The DER of the request in a PEM document.
pub fn read_der(text: &str) -> Result<Vec<u8>, PemError> {
    Ok(block(text)?.contents().to_vec())
}

/// Whether two requests ask for the same, with the same key: everything but their signatures, which
/// differ each time with ECDSA.
pub fn ask_for_the_same(one: &str, other: &str) -> bool {
    let information = |text: &str| {
        let block = block(text).ok()?;
        let mut outer = Reader::new(block.contents()).enter(der::SEQUENCE).ok()?;
        outer.read_whole(der::SEQUENCE).ok().map(<[u8]>::to_vec)
    };
    information(one).is_some_and(|found| information(other) == Some(found))
}

fn block(text: &str) -> Result<Block, PemError> {
    pem::blocks(text)?.first("certificate request", |label| {
        label == Label::CertificateRequest
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::key::KeyAlgorithm;
    use crate::pki::testing::{ALGORITHMS, client, openssl, server};
    use x509_parser::prelude::FromDer as _;

    #[test]
    fn a_request_of_every_key_is_believed_by_strangers_and_reads_back() {
        for algorithm in ALGORITHMS {
            let key = PrivateKey::generate(algorithm).unwrap();
            let pem = request(&server(), &key).unwrap();
            let text = openssl(&["req", "-verify", "-noout", "-text"], &pem).unwrap();
            for line in [
                "Subject: CN = ledger.treasury.svc",
                "DNS:*.ledger-pods.treasury.svc",
                "TLS Web Server Authentication\n",
                "CA:FALSE",
            ] {
                assert!(text.contains(line), "{line} is not in\n{text}");
            }
            let enciphers = text.contains("Digital Signature, Key Encipherment");
            assert_eq!(enciphers, key.kind().enciphers(), "{text}");
            let der = ::pem::parse(&pem).unwrap().into_contents();
            let (rest, parsed) =
                x509_parser::certification_request::X509CertificationRequest::from_der(&der)
                    .unwrap();
            assert!(rest.is_empty());
            let info = &parsed.certification_request_info;
            assert_eq!(info.subject_pki.raw, key.public_key_der());
            rcgen::CertificateSigningRequestParams::from_der(&der.into()).unwrap();
            let read = read(&pem).unwrap();
            assert_eq!(read.subject, "CN=ledger.treasury.svc");
            assert_eq!(&read.public_key, key.public_key());
        }
    }

    #[test]
    fn requests_are_the_same_if_key_and_names_are() {
        let [key, other] = [(); 2].map(|()| PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap());
        let of = |profile, key| request(&profile, key).unwrap();
        let first = of(server(), &key);
        assert!(ask_for_the_same(&first, &of(server(), &key)));
        assert!(!ask_for_the_same(&first, &of(server(), &other)));
        assert!(!ask_for_the_same(&first, &of(client(), &key)));
        assert!(!ask_for_the_same("", ""));
    }

    #[test]
    fn a_request_with_another_key_put_in_proves_nothing() {
        let [ours, theirs] =
            [(); 2].map(|()| PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap());
        let mut der = ::pem::parse(request(&client(), &ours).unwrap())
            .unwrap()
            .into_contents();
        let at = der
            .windows(ours.public_key_der().len())
            .position(|window| window == ours.public_key_der())
            .unwrap();
        der[at..at + theirs.public_key_der().len()].copy_from_slice(theirs.public_key_der());
        let error = read(&pem::write_block("CERTIFICATE REQUEST", &der)).unwrap_err();
        assert_eq!(
            error,
            CsrError::NoProof {
                subject: "CN=clerk".to_owned()
            }
        );
        assert!(matches!(read("nothing"), Err(CsrError::Document(_))));
    }
}
