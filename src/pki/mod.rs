//! The PKI core: keys, requests, profiles, signing, verification, trust; pure and synchronous.
//!
//! Theory of operation: a [`key::PrivateKey`] is made; a [`profile::LeafProfile`] says what its
//! certificate shall state; a [`authority::CertificateAuthority`] signs it; the resulting PEM is
//! taken back in as a [`chain::KeyedChain`], which proves that the key is the leaf's, and becomes a
//! [`chain::VerifiedChain`] only when a verifier that did not make it has found a path to the very
//! [`bundle::TrustBundle`] that clients will hold. Time and serial numbers are arguments.
//!
//! ```text
//! PrivateKey ─┐                              TrustBundle
//! LeafProfile ┴─▶ CertificateAuthority ─▶ PEM ─▶ KeyedChain ─▶ VerifiedChain ─▶ Secret
//! ```
//!
//! It stands on its own: whoever wants certificates without a PgBouncer uses this module alone.
//! `tests/it/library.rs` does so, and is the example to copy.
//!
//! The encoding of certificates is written here (`der`, `tbs`) and not left to a library, because
//! the issuer's name must be repeated byte for byte as its own certificate has it, and because a
//! subject may hold several values of one attribute (`O=a, O=b`, `DC=com, DC=example`).

pub mod key;
pub mod profile;

pub mod answer;
pub mod authority;
pub mod bundle;
pub mod chain;
pub mod csr;
pub mod facts;
pub mod peer;
pub mod pem;
pub mod renewal;

mod der;
mod lineage;
mod oid;
mod signature;
mod tbs;
pub(crate) mod text;
mod verdict;

#[cfg(test)]
mod bundle_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod limit_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
