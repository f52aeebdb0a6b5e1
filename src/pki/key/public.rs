//! The public half of a key, as certificates and requests carry it.

use super::encoding::{integer_bits, named};
use super::{Curve, KeyError, KeyKind, RSA_MAX_BITS, RSA_MIN_BITS};
use crate::pki::der::{self, Reader};
use crate::pki::oid;

/// A public key of a kind that we sign for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PublicKey {
    kind: KeyKind,
    spki: Vec<u8>,
    /// The content of the `BIT STRING`, over which RFC 5280 4.2.1.2 computes key identifiers.
    bits: Vec<u8>,
}

impl PublicKey {
    /// Reads a DER `SubjectPublicKeyInfo`; the same limits hold as for private keys.
    pub fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        let mut outer = Reader::new(spki);
        let mut info = outer.enter(der::SEQUENCE)?;
        if !outer.is_at_end() {
            return Err(KeyError::Malformed {
                detail: "something follows the public key",
            });
        }
        let mut algorithm = info.enter(der::SEQUENCE)?;
        let bits = info.read_bit_string()?;
        let identifier = algorithm.read(der::OBJECT_IDENTIFIER)?;
        let kind = if identifier == oid::RSA_ENCRYPTION {
            return Self::from_rsa(bits);
        } else if identifier == oid::ED25519 {
            KeyKind::Ed25519
        } else if identifier == oid::EC_PUBLIC_KEY {
            match algorithm.read(der::OBJECT_IDENTIFIER)? {
                oid::CURVE_P256 => KeyKind::EcdsaP256,
                oid::CURVE_P384 => KeyKind::EcdsaP384,
                other => match named(other) {
                    "unknown" => KeyKind::Other("ECDSA on an unknown curve"),
                    name => KeyKind::Other(name),
                },
            }
        } else {
            KeyKind::Other(named(identifier))
        };
        if let KeyKind::Other(name) = kind {
            return Err(KeyError::Unsupported { kind: name });
        }
        Ok(Self {
            kind,
            spki: spki.to_vec(),
            bits: bits.to_vec(),
        })
    }

    /// What the key is.
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The DER `SubjectPublicKeyInfo`.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The key itself: a point, or an `RSAPublicKey`.
    pub(super) fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// The key identifier by method 1 of RFC 7093: the first 160 bits of the key's SHA-256.
    pub(in crate::pki) fn key_identifier(&self) -> [u8; 20] {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.bits);
        let mut identifier = [0; 20];
        identifier.copy_from_slice(&digest.as_ref()[..20]);
        identifier
    }

    /// The `AlgorithmIdentifier` of the signatures that the private half makes.
    pub(in crate::pki) fn signature_algorithm(&self) -> Vec<u8> {
        match self.kind {
            KeyKind::EcdsaP256 => der::sequence(&[&der::oid(oid::ECDSA_WITH_SHA256)]),
            KeyKind::EcdsaP384 => der::sequence(&[&der::oid(oid::ECDSA_WITH_SHA384)]),
            KeyKind::Ed25519 => der::sequence(&[&der::oid(oid::ED25519)]),
            // RFC 4055 5: the parameters of an RSA signature are NULL, not absent.
            KeyKind::Rsa { .. } | KeyKind::Other(_) => {
                der::sequence(&[&der::oid(oid::SHA256_WITH_RSA), der::NULL])
            }
        }
    }

    pub(super) fn from_ec(curve: Curve, point: &[u8]) -> Self {
        let algorithm = der::sequence(&[&der::oid(oid::EC_PUBLIC_KEY), &der::oid(curve.oid())]);
        let kind = match curve {
            Curve::P256 => KeyKind::EcdsaP256,
            Curve::P384 => KeyKind::EcdsaP384,
        };
        Self::assemble(kind, &algorithm, point)
    }

    pub(super) fn from_ed25519(point: &[u8]) -> Self {
        let algorithm = der::sequence(&[&der::oid(oid::ED25519)]);
        Self::assemble(KeyKind::Ed25519, &algorithm, point)
    }

    /// Takes an `RSAPublicKey`.
    pub(super) fn from_rsa(pkcs1: &[u8]) -> Result<Self, KeyError> {
        let mut key = Reader::new(pkcs1).enter(der::SEQUENCE)?;
        let bits = integer_bits(key.read(der::INTEGER)?);
        if bits < RSA_MIN_BITS {
            return Err(KeyError::TooSmall { bits });
        }
        if bits > RSA_MAX_BITS {
            return Err(KeyError::TooLarge { bits });
        }
        let algorithm = der::sequence(&[&der::oid(oid::RSA_ENCRYPTION), der::NULL]);
        Ok(Self::assemble(KeyKind::Rsa { bits }, &algorithm, pkcs1))
    }

    fn assemble(kind: KeyKind, algorithm: &[u8], bits: &[u8]) -> Self {
        Self {
            kind,
            spki: der::sequence(&[algorithm, &der::bit_string(bits)]),
            bits: bits.to_vec(),
        }
    }
}
