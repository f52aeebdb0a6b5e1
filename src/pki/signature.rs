//! Checks signatures over certificates and requests: with the verifiers that webpki uses, and with our
//! own ([`super::algorithms`]) where those lack an algorithm that OpenSSL has.

use super::algorithms::{self, Pss};
use super::der::{self, DerError, Reader};
use super::oid;

/// The smallest RSA key that OpenSSL takes for a CA at security level 2, Debian's and its own default.
const RSA_MIN_BITS: usize = 2048;

/// The parts of `SEQUENCE { toBeSigned, algorithm, signature }`.
pub(super) struct Signed<'a> {
    message: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

/// The result of checking a signature against a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// The private half of the key made the signature.
    Valid,
    /// Another key made the signature.
    Invalid,
    /// OpenSSL refuses an algorithm or a key of that strength; its name.
    Weak(String),
    /// The signature cannot be verified here; the name of its algorithm.
    Unknown(String),
}

impl<'a> Signed<'a> {
    /// Takes a certificate or a request apart.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, DerError> {
        let mut signed = Reader::new(bytes).enter(der::SEQUENCE)?;
        Ok(Self {
            message: signed.read_whole(der::SEQUENCE)?,
            algorithm: signed.read(der::SEQUENCE)?,
            signature: signed.read_bit_string()?,
        })
    }

    /// Whether the signature was made by the private half of `spki`, and is strong enough.
    pub(super) fn is_by(&self, spki: &[u8]) -> bool {
        self.fit(spki) == Fit::Valid
    }

    /// Checks the signature against `spki`.
    pub(super) fn fit(&self, spki: &[u8]) -> Fit {
        let Ok((key_algorithm, key)) = split_spki(spki) else {
            return Fit::Invalid;
        };
        if let Some(bits) = rsa_bits(key_algorithm, key).filter(|bits| *bits < RSA_MIN_BITS) {
            return Fit::Weak(format!("an RSA key of {bits} bits"));
        }
        let known = algorithms::ALL.iter().find(|algorithm| {
            algorithm.signature_alg_id().as_ref() == self.algorithm
                && algorithm.public_key_alg_id().as_ref() == key_algorithm
        });
        if let Some(algorithm) = known {
            let is_valid = algorithm
                .verify_signature(key, self.message, self.signature)
                .is_ok();
            return if is_valid { Fit::Valid } else { Fit::Invalid };
        }
        if !is_for(self.algorithm, key_algorithm) {
            return Fit::Invalid;
        }
        if first_oid(self.algorithm) == Some(oid::RSASSA_PSS) {
            return self.fit_pss(key);
        }
        let name = algorithm_name(self.algorithm, key_algorithm);
        if oid::WEAK_SIGNATURES
            .iter()
            .any(|(weak, _)| first_oid(self.algorithm) == Some(*weak))
        {
            Fit::Weak(name)
        } else {
            Fit::Unknown(name)
        }
    }

    /// RSASSA-PSS with any length of salt.
    fn fit_pss(&self, key: &[u8]) -> Fit {
        match Pss::read(self.algorithm) {
            Some(pss) if pss.verify(key, self.message, self.signature) => Fit::Valid,
            Some(_) => Fit::Invalid,
            None => Fit::Weak("RSASSA-PSS with SHA-1 or unusual parameters".to_owned()),
        }
    }
}

/// Splits a `SubjectPublicKeyInfo` into algorithm and key.
pub(super) fn split_spki(spki: &[u8]) -> Result<(&[u8], &[u8]), DerError> {
    let mut info = Reader::new(spki).enter(der::SEQUENCE)?;
    Ok((info.read(der::SEQUENCE)?, info.read_bit_string()?))
}

/// Whether OpenSSL takes a signature of `algorithm` for one that a key of `key_algorithm` can make: a
/// certificate whose signature does not fit the key's kind is not of that CA.
pub(super) fn is_for(algorithm: &[u8], key_algorithm: &[u8]) -> bool {
    let (Some(signature), Some(key)) = (first_oid(algorithm), first_oid(key_algorithm)) else {
        return false;
    };
    let is_under = |prefix: &[u8]| signature.starts_with(prefix);
    match key {
        oid::RSASSA_PSS => signature == oid::RSASSA_PSS,
        oid::RSA_ENCRYPTION => is_under(oid::PKCS1),
        oid::EC_PUBLIC_KEY => is_under(oid::ECDSA_SIGNATURES),
        oid::DSA => oid::DSA_SIGNATURES.contains(&signature),
        // Edwards curves, ML-DSA: key and signature have one identifier.
        other => signature == other,
    }
}

/// The bits of an RSA key's modulus; `None` for other keys.
pub(super) fn rsa_bits(key_algorithm: &[u8], key: &[u8]) -> Option<usize> {
    let is_rsa = [oid::RSA_ENCRYPTION, oid::RSASSA_PSS].contains(&first_oid(key_algorithm)?);
    let modulus = is_rsa
        .then(|| Reader::new(key).enter(der::SEQUENCE))?
        .and_then(|mut numbers| numbers.read(der::INTEGER));
    let modulus = modulus.ok()?;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let digits = &modulus[zeros..];
    let top = digits.first().map_or(8, |byte| byte.leading_zeros());
    (digits.len() * 8).checked_sub(top.try_into().ok()?)
}

/// The object identifier that an `AlgorithmIdentifier` begins with.
pub(super) fn first_oid(algorithm: &[u8]) -> Option<&[u8]> {
    Reader::new(algorithm).read(der::OBJECT_IDENTIFIER).ok()
}

/// The name of a signature's algorithm, and of the key's where that is what is unusual.
fn algorithm_name(algorithm: &[u8], key_algorithm: &[u8]) -> String {
    let signature = first_oid(algorithm).unwrap_or_default();
    let named = oid::WEAK_SIGNATURES.iter().chain(&oid::OTHER_SIGNATURES);
    let signature = named
        .into_iter()
        .find(|(known, _)| *known == signature)
        .map_or("an unknown algorithm", |(_, name)| name);
    let mut parts = Reader::new(key_algorithm);
    let kind = parts.read(der::OBJECT_IDENTIFIER).unwrap_or_default();
    let curve = parts.read(der::OBJECT_IDENTIFIER).unwrap_or(kind);
    match oid::UNSUPPORTED.iter().find(|(known, _)| *known == curve) {
        Some((_, key)) if *key != signature => format!("{signature} by a key of {key}"),
        _ => signature.to_owned(),
    }
}
