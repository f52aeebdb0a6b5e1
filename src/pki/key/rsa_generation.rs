//! Makes RSA keys, which ring cannot: the one place that calls the `rsa` crate. ring signs with
//! what comes out, after its own checks.

use ring::rand::{SecureRandom, SystemRandom};
use rsa::pkcs1::EncodeRsaPrivateKey;
use rsa::rand_core::{TryCryptoRng, TryRng};
use zeroize::Zeroizing;

/// A new key with a modulus of `bits`, as a DER `RSAPrivateKey`; `None` when the system has no
/// randomness to give.
pub(super) fn pkcs1(bits: usize) -> Option<Zeroizing<Vec<u8>>> {
    let key = rsa::PrivateKey::new(&mut SystemRng(SystemRandom::new()), bits).ok()?;
    let document = key.to_pkcs1_der().ok()?;
    Some(Zeroizing::new(document.as_bytes().to_vec()))
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
