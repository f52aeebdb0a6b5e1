//! Paths from certificates to roots, as the readers of a chain see them.
//!
//! webpki tries every path. OpenSSL, which libpq and PgBouncer use, builds one and never goes back: by
//! names and key identifiers, from its trust store first, and it verifies signatures when the path is
//! there. So a bundle can be right for the one and wrong for the other.
//!
//! - [`Certificate`]: what both go by, read once;
//! - [`search`]: every path from an issuing CA to a self-signed root, within bounds;
//! - [`openssl`]: the path that OpenSSL builds, and its checks of it;
//! - [`policies`]: certificate policies, which OpenSSL ignores and Go and Java do not;
//! - [`Defect`]: a refusal, with the certificate, the extension or algorithm, and the reader.

mod certificate;
mod defect;
mod names;
pub(super) mod openssl;
pub(super) mod policies;
pub(super) mod search;

#[cfg(test)]
mod tests;

pub(super) use self::certificate::{Authority, Certificate, Usage};
pub use self::defect::Defect;
