//! Checks signatures over certificates and requests, with the verifiers that webpki uses.

use super::der::{self, DerError, Reader};

/// What `SEQUENCE { toBeSigned, algorithm, signature }` consists of.
pub(super) struct Signed<'a> {
    message: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
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

    /// Whether the signature was made by the private half of `spki`.
    pub(super) fn is_by(&self, spki: &[u8]) -> bool {
        let Ok((key_algorithm, key)) = split_spki(spki) else {
            return false;
        };
        webpki::ALL_VERIFICATION_ALGS
            .iter()
            .filter(|algorithm| {
                algorithm.signature_alg_id().as_ref() == self.algorithm
                    && algorithm.public_key_alg_id().as_ref() == key_algorithm
            })
            .any(|algorithm| {
                algorithm
                    .verify_signature(key, self.message, self.signature)
                    .is_ok()
            })
    }
}

pub(super) fn split_spki(spki: &[u8]) -> Result<(&[u8], &[u8]), DerError> {
    let mut info = Reader::new(spki).enter(der::SEQUENCE)?;
    Ok((info.read(der::SEQUENCE)?, info.read_bit_string()?))
}
