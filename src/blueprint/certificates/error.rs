//! What can be wrong with `spec.tls`.

use time::Duration;

use crate::blueprint::bounds::OutOfBounds;
use crate::duration::ParseDurationError;
use crate::names::Alias;

/// Why the wanted certificates cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WantedError {
    /// Nobody signs.
    #[error("spec.tls.issuerRef is missing: name the Issuer or ClusterIssuer that signs")]
    NoIssuer,
    /// More, or longer, than there is room for.
    #[error(transparent)]
    Bounds(#[from] OutOfBounds),
    /// Not an issuer that cert-manager's own group has.
    #[error(
        "the issuer of {alias} is a {kind} in {group}; it has to be an Issuer or ClusterIssuer in \
         cert-manager.io"
    )]
    ForeignIssuer {
        /// Whose issuer.
        alias: Alias,
        /// Its kind.
        kind: String,
        /// Its group.
        group: String,
    },
    /// `duration` or `renewBefore` is no duration.
    #[error("spec.tls.certificates[{alias}].{field} cannot be read")]
    Duration {
        /// Whose certificate.
        alias: Alias,
        /// Which field.
        field: &'static str,
        /// What is wrong.
        #[source]
        source: ParseDurationError,
    },
    /// A lifetime that no certificate can have.
    #[error("spec.tls.certificates[{alias}].{field} is {value}; it has to be more than nothing")]
    NotPositive {
        /// Whose certificate.
        alias: Alias,
        /// Which field.
        field: &'static str,
        /// What was asked for.
        value: String,
    },
    /// Renewal before issuance.
    #[error(
        "spec.tls.certificates[{alias}]: lower renewBefore ({renew_before}) or raise duration \
         ({duration})"
    )]
    RenewsTooEarly {
        /// Whose certificate.
        alias: Alias,
        /// How long before its end.
        renew_before: Duration,
        /// Its whole life.
        duration: Duration,
    },
    /// Not an address.
    #[error("spec.tls.certificates[{alias}].ipAddresses: {value:?} is no IP address")]
    IpAddress {
        /// Whose certificate.
        alias: Alias,
        /// What was asked for.
        value: String,
    },
    /// An annotation with a value that means nothing.
    #[error("annotation {annotation}: {value:?} is none of {}", .allowed.join(", "))]
    Annotation {
        /// Which annotation.
        annotation: &'static str,
        /// What was asked for.
        value: String,
        /// What may be asked for.
        allowed: Vec<&'static str>,
    },
    /// Two aliases would be published in one Secret.
    #[error("spec.tls.certificates: {first} and {second} name the same Secret {secret}")]
    SharedSecret {
        /// One alias.
        first: Alias,
        /// The other.
        second: Alias,
        /// The Secret.
        secret: String,
    },
}
