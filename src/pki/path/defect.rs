//! Refusals: each names the certificate, what of it, and the reader that refuses.

/// Why a reader does not accept a certificate on a path, or why that is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// A critical extension that OpenSSL does not know.
    #[error(
        "{certificate} has the critical extension {extension}, which OpenSSL (libpq, PgBouncer) refuses: issue it with an extension that is not critical"
    )]
    CriticalExtension {
        /// The certificate's subject.
        certificate: String,
        /// The extension.
        extension: String,
    },
    /// An extension that is damaged.
    #[error(
        "the extension {extension} of {certificate} cannot be read: issue the certificate again"
    )]
    Unreadable {
        /// The certificate's subject.
        certificate: String,
        /// The extension.
        extension: String,
    },
    /// The extended key usage of a CA lacks the purpose.
    #[error(
        "the extendedKeyUsage of the CA {certificate} lacks {purpose}, which OpenSSL (libpq, PgBouncer) wants of every certificate that has that extension: add it or leave the extension away"
    )]
    Purpose {
        /// The certificate's subject.
        certificate: String,
        /// The purpose.
        purpose: &'static str,
    },
    /// The key usage of the leaf does not fit its use.
    #[error(
        "the keyUsage of {certificate} has no bit that {purpose} needs, so OpenSSL (libpq, PgBouncer) refuses it: add digitalSignature"
    )]
    KeyUsage {
        /// The certificate's subject.
        certificate: String,
        /// The purpose.
        purpose: &'static str,
    },
    /// The key usage of a CA lacks keyCertSign.
    #[error(
        "the keyUsage of {certificate} lacks keyCertSign, so OpenSSL (libpq, PgBouncer) refuses what it signs: issue it again with keyCertSign"
    )]
    NoCertSign {
        /// The certificate's subject.
        certificate: String,
    },
    /// A certificate that signed is not a CA's.
    #[error("{certificate} is not a CA: its basicConstraints do not say so")]
    NotCa {
        /// The certificate's subject.
        certificate: String,
    },
    /// An X.509 v1 certificate between leaf and root.
    #[error(
        "{certificate} is an X.509 v1 certificate, which OpenSSL (libpq, PgBouncer) accepts as a root only: issue it again as v3 with basicConstraints"
    )]
    Version1 {
        /// The certificate's subject.
        certificate: String,
    },
    /// Key identifiers that do not fit.
    #[error(
        "the authorityKeyIdentifier of {certificate} names another certificate of {issuer} than the one that is there, and OpenSSL (libpq, PgBouncer) goes by it: add the certificate of {issuer} with that identifier"
    )]
    KeyIdentifier {
        /// The certificate's subject.
        certificate: String,
        /// The CA's subject.
        issuer: String,
    },
    /// A signature or a key below OpenSSL's default security level.
    #[error(
        "{certificate} is signed by {issuer} with {algorithm}, which OpenSSL (libpq, PgBouncer) refuses at security level 2: have it signed with SHA-256 and a key of at least 2048 bits"
    )]
    Weak {
        /// The certificate's subject.
        certificate: String,
        /// The CA's subject.
        issuer: String,
        /// The algorithm or the key.
        algorithm: String,
    },
    /// A signature that cannot be verified here.
    #[error(
        "{certificate} is signed by {issuer} with {algorithm}, which is not supported here: OpenSSL may accept it, other clients may not; have it signed with ECDSA, Ed25519 or RSA"
    )]
    Algorithm {
        /// The certificate's subject.
        certificate: String,
        /// The CA's subject.
        issuer: String,
        /// The algorithm.
        algorithm: String,
    },
    /// A signature by another key of the same name.
    #[error(
        "{certificate} is not signed by the key of {issuer} that OpenSSL (libpq, PgBouncer) takes: several CAs have that name, no key identifier tells them apart, and it tries one of them alone; issue the CA again with a subjectKeyIdentifier or another name"
    )]
    Namesake {
        /// The certificate's subject.
        certificate: String,
        /// The CA's subject.
        issuer: String,
    },
    /// A link certificate where a root is needed.
    #[error(
        "{certificate} names itself as its issuer, and another key signed it: it is a link certificate (RFC 4210) and not a root; add the self-signed certificate of {certificate}, or the root that signed it"
    )]
    Link {
        /// The certificate's subject.
        certificate: String,
    },
    /// A path that ends below a root.
    #[error(
        "{certificate} is trusted without the certificate of its issuer {issuer}, and OpenSSL (libpq, PgBouncer) follows a path to a self-signed root: add that root to the bundle"
    )]
    NoRoot {
        /// The certificate's subject.
        certificate: String,
        /// The missing CA.
        issuer: String,
    },
    /// More CAs than a CA of the path allows below it.
    #[error("the CA {certificate} allows {allowed} CAs below it, and the path has more")]
    PathLength {
        /// The certificate's subject.
        certificate: String,
        /// How many it allows.
        allowed: u32,
    },
    /// A certificate that is needed is out of date.
    #[error("{certificate}, which OpenSSL (libpq, PgBouncer) takes for the path, is out of date")]
    OutOfDate {
        /// The certificate's subject.
        certificate: String,
    },
    /// A policy is required that the leaf does not have.
    #[error(
        "the extension policyConstraints of {certificate} requires a certificate policy that {leaf} does not have: Go and Java refuse that, and OpenSSL (libpq, PgBouncer) would accept it; issue the CA without requireExplicitPolicy"
    )]
    PolicyRequired {
        /// The certificate that requires it.
        certificate: String,
        /// The leaf's subject.
        leaf: String,
    },
    /// Policies that cannot be followed here.
    #[error(
        "the extension policyMappings of {certificate} is not supported where a policy is required: OpenSSL (libpq, PgBouncer) would accept it"
    )]
    PolicyMappings {
        /// The certificate's subject.
        certificate: String,
    },
    /// Name constraints that forbid a name.
    #[error(
        "the nameConstraints of the CA {certificate} forbid {name}, so OpenSSL (libpq, PgBouncer) refuses it: leave the name away, or have another CA sign"
    )]
    NamesForbidden {
        /// The CA's subject.
        certificate: String,
        /// The name.
        name: String,
    },
    /// More CAs than a path may have.
    #[error("the path from {certificate} to its root has more than {most} CAs: shorten it")]
    TooDeep {
        /// The issuing CA's subject.
        certificate: String,
        /// How many a path may have.
        most: usize,
    },
    /// More paths than are looked at.
    #[error(
        "the certificates of {certificate} and above it take more than {most} signature checks to put in order: remove those that are not needed"
    )]
    TooMany {
        /// The issuing CA's subject.
        certificate: String,
        /// How many checks are made.
        most: usize,
    },
}
