//! PEM in, DER out, and back; with limits, because the input comes from Secrets that anybody who may
//! write one can fill.
//!
//! Documents are read here and by no library, because any field may hold a private key: also those for
//! certificates, when a user has exchanged two files. [`PemError`] tells which block of the document is
//! wrong and how; it cannot carry text of the document ([`assert_opaque`]).
//!
//! What is read is what Go's `encoding/pem`, and so cert-manager, reads, and a little more: text around
//! the blocks, a byte order mark, indentation, any line ends, blank lines and spaces anywhere within a
//! block, headers (RFC 1421) with or without a blank line after them, base64 in lines of any length,
//! blocks that stand on one line.

mod label;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pem_rfc7468::LineEnding;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

pub use self::label::{Label, Labels};
use crate::opaque::assert_opaque;

/// No Secret is larger than this (the API server's own limit).
pub const DOCUMENT_MAX_BYTES: usize = 1024 * 1024;
/// More certificates than this are no chain and no bundle that a client would load.
pub const CERTIFICATES_MAX: usize = 512;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

const _: () = assert_opaque::<PemError>();

/// Why a PEM document could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// Bytes that are not text.
    #[error("not a PEM document: it is not UTF-8 text")]
    NotText,
    /// The armour or the base64 is broken.
    #[error("not a PEM document: block {block}, which begins in line {line}, {trouble}")]
    Malformed {
        /// Which block, counted from 1.
        block: usize,
        /// The line of the document in which it begins, counted from 1.
        line: usize,
        /// What is wrong with it.
        trouble: Trouble,
    },
    /// No block of the wanted kind.
    #[error("no {wanted} in the document{found}: write a PEM document that has one")]
    Missing {
        /// What was looked for.
        wanted: &'static str,
        /// The labels of the blocks that are there.
        found: Labels,
    },
    /// A block that nothing could be made of, so that a root might be lost without a word.
    #[error(
        "block {block} of the document, which begins in line {line}, is {label}, and certificates are wanted: {}",
        .label.remedy()
    )]
    Foreign {
        /// Which block, counted from 1.
        block: usize,
        /// The line of the document in which it begins, counted from 1.
        line: usize,
        /// What it is.
        label: Label,
    },
    /// Two keys, of which only one could be used.
    #[error(
        "the document has two different blocks of a {wanted}, the second in line {line}: remove the one that is not meant"
    )]
    Two {
        /// What was looked for.
        wanted: &'static str,
        /// The line of the document in which the second begins, counted from 1.
        line: usize,
    },
    /// A certificate block that does not hold a certificate.
    #[error("certificate {position} of the document cannot be read")]
    BadCertificate {
        /// Counted from 1.
        position: usize,
    },
}

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is no first line.
    NoFirstLine,
    /// The first line has no end.
    FirstLine,
    /// There is no last line.
    NoLastLine,
    /// The last line is another block's.
    OtherLastLine,
    /// Characters that are not base64.
    NotBase64,
    /// The base64 breaks off.
    Incomplete,
}

/// One block of a document.
pub(super) struct Block {
    pub(super) label: Label,
    /// Whether its headers say that it is encrypted, as OpenSSL before 1.0 wrote keys.
    pub(super) is_encrypted: bool,
    /// The line of the document in which it begins, counted from 1.
    line: usize,
    contents: Zeroizing<Vec<u8>>,
}

/// What a document holds.
pub(super) struct Blocks {
    blocks: Vec<Block>,
}

/// Reads every certificate of a document, in order; none is an error. Private keys and their parameters
/// may stand among them, other blocks are an error.
pub fn read_certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let blocks = blocks(text)?;
    let missing = blocks.missing("certificate");
    let mut all = blocks.blocks.iter().enumerate();
    let foreign = all.find(|(_, block)| {
        block.label != Label::Certificate && !block.label.is_beside_certificates()
    });
    if let Some((index, block)) = foreign {
        return Err(PemError::Foreign {
            block: index + 1,
            line: block.line,
            label: block.label,
        });
    }
    let certificates: Vec<_> = blocks
        .blocks
        .into_iter()
        .filter(|block| block.label == Label::Certificate)
        .map(|mut block| CertificateDer::from(std::mem::take(&mut *block.contents)))
        .collect();
    if certificates.is_empty() {
        return Err(missing);
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

/// Whether a private key begins in a document, of whatever kind, and whole or not.
pub fn begins_private_key(text: &str) -> bool {
    let labels = text.split(BEGIN).skip(1);
    labels
        .filter_map(|after| after.split_once(DASHES))
        .any(|(name, _)| Label::read(name.trim()).is_private_key())
}

/// The text of a field of bytes.
pub fn text(bytes: &[u8]) -> Result<&str, PemError> {
    std::str::from_utf8(bytes).map_err(|_| PemError::NotText)
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
pub(super) fn blocks(text: &str) -> Result<Blocks, PemError> {
    if text.len() > DOCUMENT_MAX_BYTES {
        return Err(PemError::TooLarge { length: text.len() });
    }
    let mut blocks = Vec::new();
    let mut rest = text;
    loop {
        let begin = rest.find(BEGIN);
        // An end before it is that of a block whose first line is damaged.
        let at = rest.find(END).into_iter().chain(begin).min();
        let Some(at) = at else { break };
        let line = 1 + text[..text.len() - rest.len() + at].matches('\n').count();
        let malformed = |trouble| PemError::Malformed {
            block: blocks.len() + 1,
            line,
            trouble,
        };
        if begin != Some(at) {
            return Err(malformed(Trouble::NoFirstLine));
        }
        let read = read_block(&rest[at + BEGIN.len()..], line);
        let (block, after) = read.map_err(malformed)?;
        rest = after;
        blocks.push(block);
    }
    Ok(Blocks { blocks })
}

/// Reads the block whose label `text` begins with, and what follows it.
fn read_block(text: &str, line: usize) -> Result<(Block, &str), Trouble> {
    let (name, after) = text.split_once(DASHES).ok_or(Trouble::FirstLine)?;
    if name.contains(['\n', '\r']) {
        return Err(Trouble::FirstLine);
    }
    let (body, end) = after.split_once(END).ok_or(Trouble::NoLastLine)?;
    let (last, after) = end.split_once(DASHES).ok_or(Trouble::OtherLastLine)?;
    if last != name {
        return Err(Trouble::OtherLastLine);
    }
    let (is_encrypted, encoded) = split_headers(body);
    let block = Block {
        label: Label::read(name),
        is_encrypted,
        line,
        contents: decode(encoded)?,
    };
    Ok((block, after))
}

/// Takes the headers off the front, and tells whether they say that the rest is encrypted.
fn split_headers(body: &str) -> (bool, &str) {
    let mut is_encrypted = false;
    let mut rest = body;
    loop {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let header = line.split_once(':');
        if header.is_none() && (!line.trim().is_empty() || after.is_empty()) {
            return (is_encrypted, rest);
        }
        if let Some((name, value)) = header {
            let name = name.trim();
            is_encrypted |= name.eq_ignore_ascii_case("DEK-Info")
                || name.eq_ignore_ascii_case("Proc-Type") && value.contains("ENCRYPTED");
        }
        rest = after;
    }
}

fn decode(encoded: &str) -> Result<Zeroizing<Vec<u8>>, Trouble> {
    // As large as they can become, so that no piece of a key stays behind where a buffer has grown.
    let mut dense = Zeroizing::new(String::with_capacity(encoded.len()));
    dense.extend(encoded.chars().filter(|c| !c.is_whitespace()));
    let mut contents = Zeroizing::new(vec![0; base64::decoded_len_estimate(dense.len())]);
    let length = STANDARD
        .decode_slice(dense.as_bytes(), &mut contents)
        .map_err(|_| {
            let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
            if dense.chars().all(is_base64) {
                Trouble::Incomplete
            } else {
                Trouble::NotBase64
            }
        })?;
    contents.truncate(length);
    Ok(contents)
}

// === impl Blocks ===

impl Blocks {
    /// The block that `is_wanted`; it may be there twice, but not beside another one.
    pub(super) fn first(
        self,
        wanted: &'static str,
        is_wanted: impl Fn(Label) -> bool,
    ) -> Result<Block, PemError> {
        let missing = self.missing(wanted);
        let mut wanted_ones = self
            .blocks
            .into_iter()
            .filter(|block| is_wanted(block.label));
        let found = wanted_ones.next().ok_or(missing)?;
        let other = wanted_ones.find(|block| block.contents != found.contents);
        other.map_or(Ok(found), |other| {
            Err(PemError::Two {
                wanted,
                line: other.line,
            })
        })
    }

    fn missing(&self, wanted: &'static str) -> PemError {
        let mut found = Labels::default();
        for block in &self.blocks {
            found.insert(block.label);
        }
        PemError::Missing { wanted, found }
    }
}

impl Block {
    /// The DER that it holds.
    pub(super) fn contents(&self) -> &[u8] {
        &self.contents
    }
}

// === impl Trouble ===

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoFirstLine => {
                "has a last line, and no first line that is -----BEGIN and a label"
            }
            Self::FirstLine => "has a first line that does not end in -----",
            Self::NoLastLine => "has no -----END line",
            Self::OtherLastLine => "has a last line that does not fit its first line",
            Self::NotBase64 => "has characters that are not base64",
            Self::Incomplete => "has base64 that is incomplete",
        })
    }
}

#[cfg(test)]
mod tests;
