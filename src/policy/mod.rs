//! May this be issued? cert-manager's `CertificateRequestPolicy`, evaluated here before anybody is
//! asked to sign.
//!
//! A policy *selects* requests by issuer and namespace. What it allows, a request may ask for, or
//! less; a field that `spec.allowed` leaves out has to be empty. `spec.constraints` bounds lifetime
//! and key. All rules of all policies that select a request are run, so that a person sees every
//! violation at once; one policy without any is enough to allow it. A set of policies of which none
//! selects a request does not allow it. The same request gets the same answer as from
//! approver-policy; a policy for which that cannot be promised is refused when it is read, and so is one
//! that approver-policy refuses. There are four differences: plugins do not exist here; validations see the
//! `issuer` and the `usages` beside `cr`; `status` is not read, because readiness is found out here; and who may use a
//! policy (RBAC) is the caller's question. `docs/policies.md` lists what is not supported.
//!
//! [`Policies::builtin`] allows whatever a PgBouncer's manifest can ask of an Issuer of its namespace,
//! and of an issuer that signs for others nothing that is another's; it applies where nobody gives
//! another set, so that nothing else is denied by accident.

mod attribute;
mod csr;
mod document;
mod evaluate;
mod expression;
mod request;
mod rule;
mod schema;
mod select;
mod wildcard;

use std::fmt;

use serde::Serialize;

use self::attribute::Attribute;
pub use self::csr::RequestError;
pub use self::document::{CertificateRequestPolicy, PolicyError};
pub use self::request::Request;
use self::rule::Rule;
use self::schema::{Constraints, Selector};

/// The set that applies where nobody gives another.
const BUILTIN: &str = include_str!("../../policies/default.yaml");

/// Policies to judge requests by.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    policies: Vec<Policy>,
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be issued.
    Allowed {
        /// Name of the policy that allows it.
        by: String,
    },
    /// It may not be issued.
    Denied {
        /// All reasons, of all policies that select it.
        violations: Vec<Violation>,
    },
}

/// One reason why a policy does not allow a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Name of the policy; of all policies, separated by commas, where none selects the request.
    pub policy: String,
    /// The field of the policy that is not satisfied.
    pub path: String,
    /// What was asked for; empty where nothing was.
    pub value: String,
    /// What is wrong with it.
    pub message: String,
}

/// One policy, checked and compiled.
#[derive(Clone, Debug)]
struct Policy {
    name: String,
    selector: Selector,
    judgement: Judgement,
}

/// How a policy judges.
#[derive(Clone, Debug)]
enum Judgement {
    /// By its rules.
    Rules(Rules),
    /// It allows nothing, because it cannot be understood; the words say why.
    Unusable(String),
}

/// What a policy allows.
#[derive(Clone, Debug)]
struct Rules {
    fields: Vec<Field>,
    is_ca: bool,
    usages: Vec<String>,
    constraints: Constraints,
    /// Fields that a policy requires and no request of ours can have.
    impossible: Vec<String>,
}

/// What a policy says of one attribute of a certificate.
#[derive(Clone, Debug)]
struct Field {
    attribute: Attribute,
    required: bool,
    patterns: Option<Vec<String>>,
    rules: Vec<Rule>,
}

// === impl Policies ===

impl Policies {
    /// The set that is built in: `policies/default.yaml`.
    #[expect(clippy::missing_panics_doc, reason = "a constant, which a test reads")]
    #[expect(
        clippy::expect_used,
        reason = "parsed from a constant, which a test reads"
    )]
    pub fn builtin() -> Self {
        Self::parse(BUILTIN).expect("the built-in policies can be read")
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether there are none, so that nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// The names of the policies that select `request`.
    pub fn selecting(&self, request: &Request) -> Vec<&str> {
        let selecting = self.policies.iter().filter(|p| p.selector.selects(request));
        selecting.map(|policy| policy.name.as_str()).collect()
    }

    /// Whether a policy selects by the labels of a namespace, so that a request has to carry them.
    pub fn reads_namespace_labels(&self) -> bool {
        self.policies.iter().any(|p| p.selector.reads_labels())
    }

    /// Keeps the policies of those names.
    #[must_use]
    pub fn retain(mut self, names: &[String]) -> Self {
        self.policies.retain(|policy| names.contains(&policy.name));
        self
    }

    /// Judges a request: all policies that select it, all of their rules.
    pub fn review(&self, request: &Request) -> Verdict {
        let mut violations = Vec::new();
        let mut is_selected = false;
        for policy in &self.policies {
            if !policy.selector.selects(request) {
                continue;
            }
            is_selected = true;
            let found = policy.violations(request);
            if found.is_empty() {
                return Verdict::Allowed {
                    by: policy.name.clone(),
                };
            }
            violations.extend(found);
        }
        if !is_selected {
            violations.push(self.unselected(request));
        }
        Verdict::Denied { violations }
    }

    fn unselected(&self, request: &Request) -> Violation {
        let names: Vec<&str> = self.policies.iter().map(|p| p.name.as_str()).collect();
        let issuer = &request.issuer;
        Violation {
            policy: names.join(", "),
            path: "spec.selector".to_owned(),
            value: format!("{} {} ({})", issuer.kind, issuer.name, issuer.group()),
            message: format!(
                "no policy selects this issuer in namespace {}",
                request.namespace
            ),
        }
    }
}

// === impl Policy ===

impl Policy {
    fn violations(&self, request: &Request) -> Vec<Violation> {
        match &self.judgement {
            Judgement::Rules(rules) => evaluate::violations(&self.name, rules, request),
            Judgement::Unusable(why) => vec![Violation {
                policy: self.name.clone(),
                path: "spec".to_owned(),
                value: String::new(),
                message: why.clone(),
            }],
        }
    }
}

// === impl Violation ===

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            policy,
            path,
            value,
            message,
        } = self;
        write!(f, "policy {policy}: {path}: ")?;
        if !value.is_empty() {
            write!(f, "{value:?}: ")?;
        }
        f.write_str(message)
    }
}

#[cfg(test)]
mod builtin_tests;
#[cfg(test)]
mod tests;
