//! The part of RSA that ring lacks: making keys, and signing with those that ring does not take (a public
//! exponent below 65537, a modulus that is not a multiple of 1024 bits, more than two primes).

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use rsa::pkcs1::EncodeRsaPrivateKey;
use rsa::rand_core::{TryCryptoRng, TryRng};
use rsa::{BoxedUint, Pkcs1v15Sign};
use zeroize::Zeroizing;

use super::encoding::{RsaNumbers, integer_bits};

/// A new key with a modulus of `bits`, as a DER `RSAPrivateKey`; `None` when the system has no
/// randomness to give.
pub(super) fn pkcs1(bits: usize) -> Option<Zeroizing<Vec<u8>>> {
    let key = rsa::PrivateKey::new(&mut SystemRng(SystemRandom::new()), bits).ok()?;
    let document = key.to_pkcs1_der().ok()?;
    Some(Zeroizing::new(document.as_bytes().to_vec()))
}

/// `DigestInfo` of SHA-256 up to the digest itself (RFC 8017 9.2).
const SHA256_PREFIX: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// A key that ring does not sign with. The crate zeroes it when it is dropped.
pub(super) struct OtherRsaKey(rsa::PrivateKey);

impl OtherRsaKey {
    /// Takes numbers, and proves that they belong together.
    pub(super) fn new(numbers: &RsaNumbers<'_>) -> Option<Self> {
        let number = |octets: &[u8]| {
            let bits = u32::try_from(integer_bits(octets).max(1)).ok()?;
            let start = octets.iter().position(|octet| *octet != 0)?;
            BoxedUint::from_be_slice(&octets[start..], bits.next_multiple_of(8)).ok()
        };
        let wide = |octets: &[u8]| {
            let bits = u32::try_from(integer_bits(numbers.modulus)).ok()?;
            let start = octets.iter().position(|octet| *octet != 0)?;
            BoxedUint::from_be_slice(&octets[start..], bits.next_multiple_of(8)).ok()
        };
        let primes = numbers.primes.iter().map(|prime| wide(prime));
        let key = rsa::PrivateKey::from_components(
            wide(numbers.modulus)?,
            number(numbers.public_exponent)?,
            wide(numbers.private_exponent)?,
            primes.collect::<Option<_>>()?,
        );
        let key = key.ok()?;
        key.validate().ok()?;
        Some(Self(key))
    }

    /// Signs `message` with PKCS#1 1.5 and SHA-256.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let padding = Pkcs1v15Sign {
            hash_len: Some(32),
            prefix: Box::new(SHA256_PREFIX),
        };
        let mut randomness = SystemRng(SystemRandom::new());
        let digest = digest(&SHA256, message);
        let signed = self
            .0
            .sign_with_rng(&mut randomness, padding, digest.as_ref());
        signed.ok()
    }
}

/// ring's source of randomness, in the form that the `rsa` crate asks for.
struct SystemRng(SystemRandom);

/// The system gave no randomness.
#[derive(Debug, thiserror::Error)]
#[error("no randomness")]
struct NoRandomness;

impl TryRng for SystemRng {
    type Error = NoRandomness;

    fn try_next_u32(&mut self) -> Result<u32, NoRandomness> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, NoRandomness> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        self.0.fill(bytes).map_err(|_| NoRandomness)
    }
}

impl TryCryptoRng for SystemRng {}
