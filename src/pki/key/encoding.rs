//! The encodings of private keys: PKCS#8 (RFC 5958), SEC 1 (RFC 5915), PKCS#1 (RFC 8017).

use zeroize::Zeroizing;

use super::elliptic::{long_form, public_half};
use super::{Curve, KeyEncoding, KeyError, Material, PrivateKey};
use crate::pki::der::{self, DerError, Reader};
use crate::pki::oid;

/// Reads `PrivateKeyInfo` or `OneAsymmetricKey`.
pub(super) fn read_pkcs8(bytes: &[u8]) -> Result<PrivateKey, KeyError> {
    let mut info = Reader::new(bytes).enter(der::SEQUENCE)?;
    info.read(der::INTEGER)?;
    let mut algorithm = info.enter(der::SEQUENCE)?;
    let inner = info.read(der::OCTET_STRING)?;
    let identifier = algorithm.read(der::OBJECT_IDENTIFIER)?;
    if identifier == oid::RSA_ENCRYPTION {
        PrivateKey::from_pkcs1(inner)
    } else if identifier == oid::ED25519 {
        let seed = Reader::new(inner).read(der::OCTET_STRING)?;
        PrivateKey::from_ed25519_seed(seed)
    } else if identifier == oid::EC_PUBLIC_KEY {
        let curve = curve(algorithm.read(der::OBJECT_IDENTIFIER)?)?;
        PrivateKey::from_ec(&EcNumbers::read(inner, Some(curve))?)
    } else {
        Err(KeyError::Unsupported {
            kind: named(identifier),
        })
    }
}

/// Reads `ECPrivateKey`.
pub(super) fn read_sec1(bytes: &[u8]) -> Result<PrivateKey, KeyError> {
    PrivateKey::from_ec(&EcNumbers::read(bytes, None)?)
}

/// What an `ECPrivateKey` consists of; that both halves belong together is not proved.
pub(super) struct EcNumbers {
    pub(super) curve: Curve,
    /// As long as the curve's order.
    pub(super) scalar: Zeroizing<Vec<u8>>,
    /// A point in its long form.
    pub(super) public: Vec<u8>,
}

impl EcNumbers {
    /// Takes them out of a `PrivateKeyInfo` whose curve is known.
    pub(super) fn in_pkcs8(bytes: &[u8], curve: Curve) -> Result<Self, KeyError> {
        let mut info = Reader::new(bytes).enter(der::SEQUENCE)?;
        info.read(der::INTEGER)?;
        info.read(der::SEQUENCE)?;
        Self::read(info.read(der::OCTET_STRING)?, Some(curve))
    }

    /// Reads them; the curve is the one inside, or that of the PKCS#8 envelope.
    fn read(bytes: &[u8], outer: Option<Curve>) -> Result<Self, KeyError> {
        let mut key = Reader::new(bytes).enter(der::SEQUENCE)?;
        key.read(der::INTEGER)?;
        let scalar = key.read(der::OCTET_STRING)?;
        let curve = one_curve(outer, inner_curve(&mut key)?)?;
        // Some writers drop leading zeros of the scalar, which RFC 5915 forbids.
        let mut padded = Zeroizing::new(vec![0_u8; curve.scalar_length()]);
        let gap = padded
            .len()
            .checked_sub(scalar.len())
            .ok_or(KeyError::Malformed {
                detail: "its number is longer than its curve",
            })?;
        padded[gap..].copy_from_slice(scalar);
        // It is optional (RFC 5915), and its point may be written short.
        let public = if key.next_is(der::explicit(1)) {
            match key.enter(der::explicit(1))?.read_bit_string()? {
                point @ [0x04, ..] => point.to_vec(),
                point => long_form(curve, point).ok_or(KeyError::Malformed {
                    detail: "its public half is not a point of its curve",
                })?,
            }
        } else {
            public_half(curve, &padded).ok_or(KeyError::Malformed {
                detail: "its number is not below the order of its curve",
            })?
        };
        Ok(Self {
            curve,
            scalar: padded,
            public,
        })
    }
}

fn inner_curve(key: &mut Reader<'_>) -> Result<Option<Curve>, KeyError> {
    if !key.next_is(der::explicit(0)) {
        return Ok(None);
    }
    let mut parameters = key.enter(der::explicit(0))?;
    if !parameters.next_is(der::OBJECT_IDENTIFIER) {
        return Err(KeyError::Unsupported {
            kind: "ECDSA with a curve spelled out in numbers",
        });
    }
    curve(parameters.read(der::OBJECT_IDENTIFIER)?).map(Some)
}

fn one_curve(outer: Option<Curve>, inner: Option<Curve>) -> Result<Curve, KeyError> {
    match (outer, inner) {
        (Some(outer), Some(inner)) if outer != inner => Err(KeyError::Malformed {
            detail: "it names two different curves",
        }),
        (Some(curve), _) | (None, Some(curve)) => Ok(curve),
        (None, None) => Err(KeyError::Malformed {
            detail: "it does not name its curve",
        }),
    }
}

/// What an `RSAPrivateKey` consists of; that it belongs together is not proved.
pub(super) struct RsaNumbers<'a> {
    pub(super) modulus: &'a [u8],
    pub(super) public_exponent: &'a [u8],
    pub(super) private_exponent: &'a [u8],
    pub(super) primes: Vec<&'a [u8]>,
}

/// Primes that a key may have; RFC 8017 knows no limit, and two or three are in use.
const PRIMES_MAX: usize = 4;

impl<'a> RsaNumbers<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, KeyError> {
        let mut key = Reader::new(bytes).enter(der::SEQUENCE)?;
        key.read(der::INTEGER)?;
        let modulus = key.read(der::INTEGER)?;
        let public_exponent = key.read(der::INTEGER)?;
        let private_exponent = key.read(der::INTEGER)?;
        let mut primes = vec![key.read(der::INTEGER)?, key.read(der::INTEGER)?];
        for _ in 0..3 {
            key.read(der::INTEGER)?;
        }
        if !key.is_at_end() {
            let mut others = key.enter(der::SEQUENCE)?;
            while !others.is_at_end() {
                primes.push(others.enter(der::SEQUENCE)?.read(der::INTEGER)?);
                if primes.len() > PRIMES_MAX {
                    return Err(KeyError::Unsupported {
                        kind: "RSA with more than four primes",
                    });
                }
            }
        }
        Ok(Self {
            modulus,
            public_exponent,
            private_exponent,
            primes,
        })
    }

    /// The size of the modulus.
    pub(super) fn bits(&self) -> usize {
        integer_bits(self.modulus)
    }

    /// Whether ring signs with such a key.
    pub(super) fn is_rings(&self) -> bool {
        self.primes.len() == 2
            && self.bits().is_multiple_of(1024)
            && integer_bits(self.public_exponent) > 16
    }

    /// The `RSAPublicKey`.
    pub(super) fn public(&self) -> Vec<u8> {
        let integer = |content: &[u8]| der::element(der::INTEGER, &[content]);
        der::sequence(&[&integer(self.modulus), &integer(self.public_exponent)])
    }
}

/// The number of significant bits of a non-negative `INTEGER`.
pub(super) fn integer_bits(content: &[u8]) -> usize {
    match content.iter().position(|byte| *byte != 0) {
        None => 0,
        Some(start) => (content.len() - start) * 8 - content[start].leading_zeros() as usize,
    }
}

/// The label and the bytes of `key` in `encoding`.
pub(super) fn write(key: &PrivateKey, encoding: KeyEncoding) -> (&'static str, Zeroizing<Vec<u8>>) {
    match (&key.material, encoding) {
        (Material::Rsa { pkcs1 }, KeyEncoding::Pkcs1) => {
            ("RSA PRIVATE KEY", Zeroizing::new(pkcs1.expose().clone()))
        }
        (Material::Rsa { pkcs1 }, KeyEncoding::Pkcs8) => {
            let algorithm = der::sequence(&[&der::oid(oid::RSA_ENCRYPTION), der::NULL]);
            ("PRIVATE KEY", pkcs8(&algorithm, pkcs1.expose()))
        }
        (Material::Ec { curve, scalar }, KeyEncoding::Pkcs1) => {
            let parameters = der::element(der::explicit(0), &[&der::oid(curve.oid())]);
            ("EC PRIVATE KEY", sec1(scalar.expose(), &parameters, key))
        }
        (Material::Ec { curve, scalar }, KeyEncoding::Pkcs8) => {
            let algorithm = der::sequence(&[&der::oid(oid::EC_PUBLIC_KEY), &der::oid(curve.oid())]);
            (
                "PRIVATE KEY",
                pkcs8(&algorithm, &sec1(scalar.expose(), &[], key)),
            )
        }
        // Version 1 without the public half: OpenSSL before 3.5 does not read the longer form.
        (Material::Ed25519 { seed }, KeyEncoding::Pkcs1 | KeyEncoding::Pkcs8) => {
            let algorithm = der::sequence(&[&der::oid(oid::ED25519)]);
            let inner = Zeroizing::new(der::octet_string(seed.expose()));
            ("PRIVATE KEY", pkcs8(&algorithm, &inner))
        }
    }
}

fn pkcs8(algorithm: &[u8], inner: &[u8]) -> Zeroizing<Vec<u8>> {
    let inner = Zeroizing::new(der::octet_string(inner));
    Zeroizing::new(der::sequence(&[&der::unsigned(&[0]), algorithm, &inner]))
}

fn sec1(scalar: &[u8], parameters: &[u8], key: &PrivateKey) -> Zeroizing<Vec<u8>> {
    let scalar = Zeroizing::new(der::octet_string(scalar));
    let public = der::element(der::explicit(1), &[&der::bit_string(key.public.bits())]);
    Zeroizing::new(der::sequence(&[
        &der::unsigned(&[1]),
        &scalar,
        parameters,
        &public,
    ]))
}

fn curve(identifier: &[u8]) -> Result<Curve, KeyError> {
    if identifier == oid::CURVE_P256 {
        Ok(Curve::P256)
    } else if identifier == oid::CURVE_P384 {
        Ok(Curve::P384)
    } else {
        Err(KeyError::Unsupported {
            kind: named(identifier),
        })
    }
}

/// What an algorithm or a curve is called that is not supported. The identifier itself is not told: in a
/// damaged key it may be any of its bytes.
pub(super) fn named(identifier: &[u8]) -> &'static str {
    oid::UNSUPPORTED
        .iter()
        .find(|(known, _)| *known == identifier)
        .map_or("unknown", |(_, name)| name)
}

impl Curve {
    pub(in crate::pki) const fn oid(self) -> &'static [u8] {
        match self {
            Self::P256 => oid::CURVE_P256,
            Self::P384 => oid::CURVE_P384,
        }
    }

    const fn scalar_length(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }
}

impl From<DerError> for KeyError {
    fn from(_: DerError) -> Self {
        Self::Malformed {
            detail: "its encoding breaks off or is not DER",
        }
    }
}
