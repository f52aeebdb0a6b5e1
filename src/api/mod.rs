//! Serde types of every resource we read or write, their defaults and CRDs, and what can be read off one
//! object; no behaviour.
//!
//! The types mirror what users write (docs/kubedb-compatibility.md, "Kinds"): optional fields stay
//! optional here and are answered once, by the code that validates. Large subtrees that Bouncert
//! only carries through (`podTemplate`, `init`, `monitor`) are plain JSON, so that no manifest loses
//! a field.

pub mod annotations;
pub mod appbinding;
pub mod certmanager;
pub mod common;
pub mod crds;
pub mod holder;
pub mod located;
pub mod opsrequest;
pub mod petset;
pub mod pgbouncer;
pub mod pod;
pub mod tls;
pub mod version;
pub mod workload;

pub use appbinding::AppBinding;
pub use certmanager::{CertificateRequest, ClusterIssuer, Issuer};
pub use common::{Condition, Phase};
pub use located::Located;
pub use opsrequest::{PgBouncerOpsRequest, RequestPhase, RequestType};
pub use petset::PetSet;
pub use pgbouncer::PgBouncer;
pub use tls::{AuthType, CertificateSpec, IssuerRef, SslMode, TlsConfig};
pub use version::PgBouncerVersion;
