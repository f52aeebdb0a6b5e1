//! Signature algorithms: those of webpki, and those that OpenSSL verifies and ring does not. Ours are
//! given to webpki too, so that it builds and judges paths with them. They only verify.

use p256::ecdsa::signature::hazmat::PrehashVerifier;
use ring::digest::{self, SHA256, SHA384, SHA512};
use rsa::pkcs1::DecodeRsaPublicKey as _;
use rsa::traits::SignatureScheme as _;
use rustls_pki_types::{
    AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id,
};
use webpki::ring as by_ring;

use super::der::{self, DerError, Reader};
use super::oid;

/// Every algorithm with fixed parameters. Order matters to none of them.
pub(super) static ALL: &[&dyn SignatureVerificationAlgorithm] = &[
    by_ring::ECDSA_P256_SHA256,
    by_ring::ECDSA_P256_SHA384,
    by_ring::ECDSA_P384_SHA256,
    by_ring::ECDSA_P384_SHA384,
    by_ring::ED25519,
    by_ring::RSA_PKCS1_2048_8192_SHA256,
    by_ring::RSA_PKCS1_2048_8192_SHA384,
    by_ring::RSA_PKCS1_2048_8192_SHA512,
    by_ring::RSA_PKCS1_2048_8192_SHA256_ABSENT_PARAMS,
    by_ring::RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS,
    by_ring::RSA_PKCS1_2048_8192_SHA512_ABSENT_PARAMS,
    by_ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    by_ring::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    by_ring::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
    &Ecdsa {
        curve: Curve::P256,
        hash: Hash::Sha512,
    },
    &Ecdsa {
        curve: Curve::P384,
        hash: Hash::Sha512,
    },
    &Ecdsa {
        curve: Curve::P521,
        hash: Hash::Sha256,
    },
    &Ecdsa {
        curve: Curve::P521,
        hash: Hash::Sha384,
    },
    &Ecdsa {
        curve: Curve::P521,
        hash: Hash::Sha512,
    },
    &PssKey { hash: Hash::Sha256 },
    &PssKey { hash: Hash::Sha384 },
    &PssKey { hash: Hash::Sha512 },
];

#[derive(Clone, Copy, Debug)]
enum Curve {
    P256,
    P384,
    P521,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// ECDSA with a curve, or a pair of curve and hash, that ring does not have.
#[derive(Debug)]
struct Ecdsa {
    curve: Curve,
    hash: Hash,
}

/// RSASSA-PSS by a key whose own identifier is id-RSASSA-PSS, without restrictions; the salt is as long
/// as the hash.
#[derive(Debug)]
struct PssKey {
    hash: Hash,
}

/// The parameters of an RSASSA-PSS signature (RFC 4055 3.1).
pub(super) struct Pss {
    hash: Hash,
    salt_length: usize,
}

// === impl Ecdsa ===

impl SignatureVerificationAlgorithm for Ecdsa {
    fn verify_signature(
        &self,
        key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let digest = self.hash.digest(message);
        let digest = digest.as_ref();
        let is_valid = match self.curve {
            Curve::P256 => {
                use p256::ecdsa::{Signature, VerifyingKey};
                let key = VerifyingKey::from_sec1_bytes(key).map_err(|_| InvalidSignature)?;
                let fixed = fixed::<32, 64>(signature).map_err(|_| InvalidSignature)?;
                let signature = Signature::from_slice(&fixed).map_err(|_| InvalidSignature)?;
                key.verify_prehash(digest, &signature).is_ok()
            }
            Curve::P384 => {
                use p384::ecdsa::{Signature, VerifyingKey};
                let key = VerifyingKey::from_sec1_bytes(key).map_err(|_| InvalidSignature)?;
                let fixed = fixed::<48, 96>(signature).map_err(|_| InvalidSignature)?;
                let signature = Signature::from_slice(&fixed).map_err(|_| InvalidSignature)?;
                key.verify_prehash(digest, &signature).is_ok()
            }
            Curve::P521 => {
                use p521::ecdsa::{Signature, VerifyingKey};
                let key = VerifyingKey::from_sec1_bytes(key).map_err(|_| InvalidSignature)?;
                let fixed = fixed::<66, 132>(signature).map_err(|_| InvalidSignature)?;
                let signature = Signature::from_slice(&fixed).map_err(|_| InvalidSignature)?;
                // The crate refuses a digest below half the field; zeros before it change no number.
                let mut padded = [0; 64];
                padded[64 - digest.len()..].copy_from_slice(digest);
                key.verify_prehash(&padded, &signature).is_ok()
            }
        };
        is_valid.then_some(()).ok_or(InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        match self.curve {
            Curve::P256 => alg_id::ECDSA_P256,
            Curve::P384 => alg_id::ECDSA_P384,
            Curve::P521 => alg_id::ECDSA_P521,
        }
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        match self.hash {
            Hash::Sha256 => alg_id::ECDSA_SHA256,
            Hash::Sha384 => alg_id::ECDSA_SHA384,
            Hash::Sha512 => alg_id::ECDSA_SHA512,
        }
    }
}

/// `SEQUENCE { r, s }` as both numbers side by side, each of `HALF` octets.
fn fixed<const HALF: usize, const WHOLE: usize>(signature: &[u8]) -> Result<[u8; WHOLE], DerError> {
    let mut outer = Reader::new(signature);
    let mut numbers = outer.enter(der::SEQUENCE)?;
    let mut fixed = [0; WHOLE];
    for half in fixed.chunks_exact_mut(HALF) {
        let number = match numbers.read(der::INTEGER)? {
            // A negative or empty number, or one with needless zeros.
            [] | [0x80..=0xff, ..] | [0, 0..0x80, ..] => return Err(DerError),
            [0, number @ ..] | number => number,
        };
        let start = HALF.checked_sub(number.len()).ok_or(DerError)?;
        half[start..].copy_from_slice(number);
    }
    (numbers.is_at_end() && outer.is_at_end())
        .then_some(fixed)
        .ok_or(DerError)
}

// === impl Hash ===

impl Hash {
    fn digest(self, message: &[u8]) -> digest::Digest {
        let algorithm = match self {
            Self::Sha256 => &SHA256,
            Self::Sha384 => &SHA384,
            Self::Sha512 => &SHA512,
        };
        digest::digest(algorithm, message)
    }

    fn from_algorithm(mut algorithm: Reader<'_>) -> Option<Self> {
        match algorithm.read(der::OBJECT_IDENTIFIER).ok()? {
            oid::SHA256 => Some(Self::Sha256),
            oid::SHA384 => Some(Self::Sha384),
            oid::SHA512 => Some(Self::Sha512),
            _ => None,
        }
    }
}

// === impl PssKey ===

impl SignatureVerificationAlgorithm for PssKey {
    fn verify_signature(
        &self,
        key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let by_ring = match self.hash {
            Hash::Sha256 => by_ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
            Hash::Sha384 => by_ring::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
            Hash::Sha512 => by_ring::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
        };
        by_ring.verify_signature(key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        AlgorithmIdentifier::from_slice(oid::RSASSA_PSS_ALGORITHM)
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        match self.hash {
            Hash::Sha256 => alg_id::RSA_PSS_SHA256,
            Hash::Sha384 => alg_id::RSA_PSS_SHA384,
            Hash::Sha512 => alg_id::RSA_PSS_SHA512,
        }
    }
}

// === impl Pss ===

impl Pss {
    /// Reads the `AlgorithmIdentifier` of a signature; `None` for SHA-1, and for what RFC 4055 does not
    /// have.
    pub(super) fn read(algorithm: &[u8]) -> Option<Self> {
        let mut algorithm = Reader::new(algorithm);
        algorithm.read(der::OBJECT_IDENTIFIER).ok()?;
        let mut parameters = algorithm.enter(der::SEQUENCE).ok()?;
        let mut hash = parameters.enter(der::explicit(0)).ok()?;
        let hash = Hash::from_algorithm(hash.enter(der::SEQUENCE).ok()?)?;
        let mut mask = parameters.enter(der::explicit(1)).ok()?;
        let mut mask = mask.enter(der::SEQUENCE).ok()?;
        let is_mgf1 = mask.read(der::OBJECT_IDENTIFIER).ok()? == oid::MGF1;
        let mask = Hash::from_algorithm(mask.enter(der::SEQUENCE).ok()?)?;
        let salt_length = if parameters.next_is(der::explicit(2)) {
            let mut length = parameters.enter(der::explicit(2)).ok()?;
            match length.read(der::INTEGER).ok()? {
                [] | [0x80..=0xff, ..] => return None,
                digits if digits.len() > 2 => return None,
                digits => digits
                    .iter()
                    .fold(0, |length, digit| length << 8 | usize::from(*digit)),
            }
        } else {
            20
        };
        (is_mgf1 && mask == hash && parameters.is_at_end()).then_some(Self { hash, salt_length })
    }

    /// Whether the private half of `key`, an `RSAPublicKey`, made the signature.
    pub(super) fn verify(&self, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let Ok(key) = rsa::PublicKey::from_pkcs1_der(key) else {
            return false;
        };
        let digest = self.hash.digest(message);
        let digest = digest.as_ref();
        let salt = self.salt_length;
        match self.hash {
            Hash::Sha256 => {
                rsa::Pss::<sha2::Sha256>::new_with_salt(salt).verify(&key, digest, signature)
            }
            Hash::Sha384 => {
                rsa::Pss::<sha2::Sha384>::new_with_salt(salt).verify(&key, digest, signature)
            }
            Hash::Sha512 => {
                rsa::Pss::<sha2::Sha512>::new_with_salt(salt).verify(&key, digest, signature)
            }
        }
        .is_ok()
    }
}
