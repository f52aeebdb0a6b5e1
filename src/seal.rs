//! Proof that the daemon wrote something that others can write as well: an HMAC-SHA256 with a key that
//! only the daemon has. Pure.
//!
//! A seal covers a list of parts: where the object is, which object it is about, and everything in it
//! that the daemon believes. Each part goes in with its length, so no two lists give one seal, and a
//! seal that is copied to another object does not hold there.

use std::fmt;
use std::sync::Arc;

use ring::hmac;

use crate::redacted::Redacted;

/// Octets of the key: as many as the digest has.
pub const KEY_LEN: usize = 32;

/// What a seal is put on. Seals of different kinds never hold for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A revision of TLS material.
    Revision,
    /// A private key that waits for its issuer's answer.
    WaitingKey,
    /// A note that a PgBouncer is settled.
    Settled,
}

impl Kind {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Revision => b"bouncert.dev/seal/v1/revision",
            Self::WaitingKey => b"bouncert.dev/seal/v1/waiting-key",
            Self::Settled => b"bouncert.dev/seal/v1/settled",
        }
    }
}

/// The key that seals and verifies; clones share it.
#[derive(Clone)]
pub struct Seal(Arc<Redacted<[u8; KEY_LEN]>>);

impl Seal {
    /// A seal with that key; `None` for a key of another length.
    pub fn new(key: &[u8]) -> Option<Self> {
        let key: [u8; KEY_LEN] = key.try_into().ok()?;
        Some(Self(Arc::new(Redacted::new(key))))
    }

    /// Seals `parts`: 64 hexadecimal digits.
    pub fn seal(&self, kind: Kind, parts: &[&[u8]]) -> String {
        let tag = self.context(kind, parts).sign();
        let nibbles = tag
            .as_ref()
            .iter()
            .flat_map(|octet| [octet >> 4, octet & 15]);
        nibbles
            .filter_map(|nibble| char::from_digit(u32::from(nibble), 16))
            .collect()
    }

    /// Whether `mark` is what [`Seal::seal`] gives for `parts`; takes the same time for every mark.
    pub fn holds(&self, kind: Kind, parts: &[&[u8]], mark: &str) -> bool {
        let expected = self.seal(kind, parts);
        // Both are public; what must not leak is how far a guess was right.
        let differs = expected
            .bytes()
            .zip(mark.bytes())
            .fold(expected.len() ^ mark.len(), |differs, (one, other)| {
                differs | usize::from(one ^ other)
            });
        differs == 0
    }

    fn context(&self, kind: Kind, parts: &[&[u8]]) -> hmac::Context {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.expose());
        let mut context = hmac::Context::with_key(&key);
        let mut add = |part: &[u8]| {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        };
        add(kind.name());
        for part in parts {
            add(part);
        }
        context
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(octet: u8) -> Seal {
        Seal::new(&[octet; KEY_LEN]).unwrap()
    }

    #[test]
    fn a_seal_holds_for_its_parts_its_kind_and_its_key_only() {
        let parts: [&[u8]; 3] = [b"shop", b"billing-server-cert-r2", b"content"];
        let mark = seal(7).seal(Kind::Revision, &parts);
        assert!(seal(7).holds(Kind::Revision, &parts, &mark));
        assert!(!seal(7).holds(Kind::WaitingKey, &parts, &mark));
        assert!(!seal(8).holds(Kind::Revision, &parts, &mark));
        for at in 0..parts.len() {
            let mut other = parts;
            other[at] = b"other";
            assert!(!seal(7).holds(Kind::Revision, &other, &mark), "part {at}");
        }
        for odd in ["", &mark[1..], &format!("{mark}0"), &mark.to_uppercase()] {
            assert!(!seal(7).holds(Kind::Revision, &parts, odd), "{odd}");
        }
    }

    #[test]
    fn where_a_part_ends_is_sealed_too() {
        let of = |parts: &[&[u8]]| seal(1).seal(Kind::Revision, parts);
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_ne!(of(&[b"ab"]), of(&[b"ab", b""]));
        assert_ne!(of(&[]), of(&[b""]));
    }

    #[test]
    fn a_key_of_another_length_is_refused_and_none_is_printed() {
        assert!(Seal::new(&[1; 31]).is_none() && Seal::new(&[]).is_none());
        assert_eq!(format!("{:?}", seal(7)), "Seal");
    }

    #[test]
    fn the_seal_is_the_hmac_of_the_parts_with_their_lengths() {
        // Made with Python's hmac, so that another daemon computes the same.
        let mark = seal(0).seal(Kind::Settled, &[b"shop"]);
        assert_eq!(mark, EXPECTED);
    }

    const EXPECTED: &str = "bd7703a33da8f25c34a7f13457ab5fe62f5223d720bfa6f13b5d9e075b75e09d";
}
