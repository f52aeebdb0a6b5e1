//! PEM in, DER out, and back; with limits, because the input comes from Secrets that anybody who may
//! write one can fill.

use pem_rfc7468::LineEnding;
use rustls_pki_types::CertificateDer;

/// No Secret is larger than this (the API server's own limit).
pub const DOCUMENT_MAX_BYTES: usize = 1024 * 1024;
/// More certificates than this are no chain and no bundle that a client would load.
pub const CERTIFICATES_MAX: usize = 512;

/// Why a PEM document could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Larger than [`DOCUMENT_MAX_BYTES`].
    #[error("{length} bytes are more than the {DOCUMENT_MAX_BYTES} that are read")]
    TooLarge {
        /// The size in bytes.
        length: usize,
    },
    /// More blocks than [`CERTIFICATES_MAX`].
    #[error("more than {CERTIFICATES_MAX} certificates in one document")]
    TooMany,
    /// The armour or the base64 is broken.
    #[error("not a PEM document: {detail}")]
    Malformed {
        /// What the parser said.
        detail: String,
    },
    /// No block of the wanted kind.
    #[error("no {wanted} in the document{}", found_blocks(.found))]
    Missing {
        /// What was looked for.
        wanted: &'static str,
        /// The labels of the blocks that are there.
        found: Vec<String>,
    },
    /// A certificate block that does not hold a certificate.
    #[error("certificate {position} of the document cannot be read")]
    BadCertificate {
        /// Counted from 1.
        position: usize,
    },
}

/// Reads every certificate of a document, in order; other blocks are skipped, none is an error.
pub fn read_certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let blocks = blocks(text)?;
    let found: Vec<String> = blocks.iter().map(|block| block.tag().to_owned()).collect();
    let certificates: Vec<_> = blocks
        .into_iter()
        .filter(|block| matches!(block.tag(), "CERTIFICATE" | "X509 CERTIFICATE"))
        .map(|block| CertificateDer::from(block.into_contents()))
        .collect();
    if certificates.is_empty() {
        return Err(PemError::Missing {
            wanted: "certificate",
            found,
        });
    }
    if certificates.len() > CERTIFICATES_MAX {
        return Err(PemError::TooMany);
    }
    for (position, certificate) in certificates.iter().enumerate() {
        let whole =
            x509_parser::parse_x509_certificate(certificate).is_ok_and(|(rest, _)| rest.is_empty());
        if !whole {
            return Err(PemError::BadCertificate {
                position: position + 1,
            });
        }
    }
    Ok(certificates)
}

/// Writes certificates one after the other, each block ending in a line feed.
pub fn write_certificates<'a>(
    certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>,
) -> String {
    certificates
        .into_iter()
        .map(|certificate| write_block("CERTIFICATE", certificate))
        .collect()
}

/// Writes one block, and no copy of it: it may be a private key.
#[expect(
    clippy::expect_used,
    reason = "labels are constants of ours, and what is written fits into memory"
)]
pub(super) fn write_block(label: &str, der: &[u8]) -> String {
    pem_rfc7468::encode_string(label, LineEnding::LF, der).expect("a label as RFC 7468 has them")
}

/// Splits a document into its blocks.
pub(super) fn blocks(text: &str) -> Result<Vec<::pem::Pem>, PemError> {
    if text.len() > DOCUMENT_MAX_BYTES {
        return Err(PemError::TooLarge { length: text.len() });
    }
    ::pem::parse_many(text).map_err(|error| PemError::Malformed {
        detail: error.to_string(),
    })
}

fn found_blocks(found: &[String]) -> String {
    if found.is_empty() {
        " (it has no PEM block)".to_owned()
    } else {
        format!(" (it has {})", found.join(", "))
    }
}
