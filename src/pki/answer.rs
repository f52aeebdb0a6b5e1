//! What an issuer elsewhere answered, put in order: the leaf, the CAs to be served with it, the root
//! to be trusted. Answers come in any order, with roots or without, with certificates twice.

use rustls_pki_types::CertificateDer;

use super::authority::CaError;
use super::bundle::TrustBundle;
use super::chain::CertificateChain;
use super::facts::CertificateFacts;
use super::lineage::{CaView, Lineage};
use super::path::{Certificate, Defect};
use super::pem::{self, PemError};

/// A certificate that was signed elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Leaf and intermediates, to be served.
    pub chain: CertificateChain,
    /// The root.
    pub anchors: TrustBundle,
    /// What the certificate says that signed the leaf.
    pub signer: CertificateFacts,
}

/// Why an answer is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// A private key is in it, which an issuer has no reason to send.
    #[error(
        "the answer holds a private key, and it is not used: an issuer sends certificates for the key that \
         asks; exchange the key, because it has been sent, and have the issuer send certificates only (in \
         Vault, spec.vault.path ends in sign/<role>, not in issue/<role>)"
    )]
    PrivateKey,
    /// There is no certificate in it.
    #[error("cannot read the certificate in the answer")]
    Certificate(#[source] PemError),
    /// The CA's certificates cannot be read.
    #[error("cannot read the CA certificates in the answer")]
    Authorities(#[source] PemError),
    /// The CA that signed did not come with it.
    #[error(
        "the answer ends at {subject}, and the certificate of {issuer} above it is missing: clients trust roots only"
    )]
    RootMissing {
        /// The last certificate that is there.
        subject: String,
        /// The one that is missing.
        issuer: String,
    },
    /// The CAs above it do not fit together.
    #[error("the CAs of the answer do not fit together")]
    Lineage(#[source] CaError),
    /// The CA that signed is there, and readers refuse the leaf or the CA.
    #[error("clients would refuse the certificate in the answer")]
    Refused(#[source] Defect),
}

/// Puts an answer in order: `certificate` is a PEM document with the leaf first, `authorities` are
/// PEM documents with CAs; empty ones are skipped. Of several paths the shortest that is valid when the
/// leaf begins to live leads; CAs of the others are served as well.
pub fn assemble(certificate: &str, authorities: &[&str]) -> Result<Answer, AnswerError> {
    if pem::begins_private_key(certificate)
        || authorities.iter().any(|text| pem::begins_private_key(text))
    {
        return Err(AnswerError::PrivateKey);
    }
    let mut found = pem::read_certificates(certificate).map_err(AnswerError::Certificate)?;
    let leaf = found.remove(0);
    for document in authorities.iter().filter(|text| !text.trim().is_empty()) {
        found.extend(pem::read_certificates(document).map_err(AnswerError::Authorities)?);
    }
    let unreadable = || AnswerError::Certificate(PemError::BadCertificate { position: 1 });
    let facts = CertificateFacts::read(&leaf).ok_or_else(unreadable)?;
    let below = Certificate::read(&leaf).ok_or_else(unreadable)?;
    let Some(spki) = signer(&below, &found)? else {
        // A leaf that signs itself is its own anchor.
        if below.is_self_signed() {
            return Ok(Answer {
                anchors: TrustBundle::from_certificates([leaf.clone()]),
                chain: CertificateChain::alone(leaf),
                signer: facts,
            });
        }
        return Err(AnswerError::RootMissing {
            subject: facts.subject,
            issuer: facts.issuer,
        });
    };
    let lineage = Lineage::trace(&found, &spki, &[]).map_err(|error| match error {
        CaError::RootMissing { subject, issuer } => AnswerError::RootMissing { subject, issuer },
        CaError::Refused(defect) => AnswerError::Refused(defect),
        error => AnswerError::Lineage(error),
    })?;
    // The leaf may end with its CA; it cannot begin before it.
    let at = facts.not_before;
    let path = lineage.choose(at, at);
    Ok(Answer {
        anchors: lineage.anchors(path),
        chain: lineage.serve(path, leaf, at),
        signer: path.issuing_facts().clone(),
    })
}

/// The key of the CA that signed `leaf`, if that CA is among `found`.
fn signer(
    leaf: &Certificate,
    found: &[CertificateDer<'static>],
) -> Result<Option<Vec<u8>>, AnswerError> {
    let mut refusal = None;
    for candidate in Certificate::read_all(found) {
        match leaf.judge(&candidate) {
            Ok(()) => match CaView::read(&candidate.der) {
                Ok(view) => return Ok(Some(view.spki)),
                Err(error) => refusal = refusal.or(Some(AnswerError::Lineage(error))),
            },
            Err(None) => {}
            Err(Some(defect)) => refusal = refusal.or(Some(AnswerError::Refused(defect))),
        }
    }
    refusal.map_or(Ok(None), Err)
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;
    use crate::pki::key::KeyEncoding;
    use crate::pki::profile::CaProfile;
    use crate::pki::testing::{NOW, key, root, serial, server};

    #[test]
    fn an_answer_in_any_order_becomes_the_chain_to_serve_and_the_root_to_trust() {
        let root = root("Mint");
        let profile = CaProfile::new("Mint issuing", Duration::days(365));
        let issuing = root.sign_ca(&profile, key(), serial(2), NOW).unwrap();
        let issued = issuing
            .sign(&server(), key().public_key(), serial(3), NOW)
            .unwrap();
        let leaf = pem::write_certificates([issued.chain.leaf()]);
        let (upper, lower) = (
            root.certificate_pem(),
            pem::write_certificates([issuing.certificate()]),
        );
        let orders: [(String, Vec<&str>); 4] = [
            (leaf.clone(), vec![&lower, &upper]),
            (leaf.clone(), vec![&upper, "", &lower, &lower]),
            (format!("{leaf}{lower}"), vec![&upper]),
            (format!("{leaf}{upper}{lower}"), vec![]),
        ];
        for (certificate, authorities) in orders {
            let answer = assemble(&certificate, &authorities).unwrap();
            assert_eq!(answer.chain, issued.chain);
            assert_eq!(answer.anchors, issued.anchors);
            assert_eq!(answer.signer.subject, "CN=Mint issuing");
        }
        let error = assemble(&leaf, &[&lower]).unwrap_err();
        let missing = AnswerError::RootMissing {
            subject: "CN=Mint issuing".to_owned(),
            issuer: "CN=Mint".to_owned(),
        };
        assert_eq!(error, missing);
        assert!(matches!(
            assemble(&leaf, &[]),
            Err(AnswerError::RootMissing { .. })
        ));
    }

    #[test]
    fn an_answer_with_a_private_key_in_it_is_refused_wherever_the_key_is() {
        let root = root("Mint");
        let issued = root
            .sign(&server(), key().public_key(), serial(3), NOW)
            .unwrap();
        let leaf = pem::write_certificates([issued.chain.leaf()]);
        let upper = root.certificate_pem();
        for encoding in [KeyEncoding::Pkcs8, KeyEncoding::Pkcs1] {
            let pem = key().to_pem(encoding);
            let secret = pem.expose();
            let cut = &secret[..secret.len() / 2];
            let odd = secret
                .replace("BEGIN ", "BEGIN ANY ")
                .replace("END ", "END ANY ");
            for held in [secret.as_str(), cut, &odd] {
                for (certificate, authority) in [
                    (format!("{leaf}{held}"), upper.clone()),
                    (format!("{held}{leaf}"), upper.clone()),
                    (leaf.clone(), format!("{upper}{held}")),
                    (leaf.clone(), held.to_owned()),
                ] {
                    let error = assemble(&certificate, &[&authority]).unwrap_err();
                    assert_eq!(error, AnswerError::PrivateKey);
                }
            }
        }
        assert!(assemble(&leaf, &[&upper]).is_ok());
    }
}
