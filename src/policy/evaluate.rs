//! The rules of one policy, one small function each; all of them are run.

use time::Duration;

use super::schema::{Algorithm, Constraints};
use super::wildcard::matches;
use super::{Field, Request, Rules, Violation};
use crate::duration::GoDuration;
use crate::pki::key::KeyKind;

/// Everything that `rules` of the policy `policy` have against `request`.
pub(super) fn violations(policy: &str, rules: &Rules, request: &Request) -> Vec<Violation> {
    let mut found = Findings {
        policy,
        violations: Vec::new(),
    };
    for field in &rules.fields {
        field_allows(field, request, &mut found);
    }
    for path in &rules.impossible {
        found.add(path, "", "is required, and no certificate of ours has it");
    }
    ca_is_allowed(rules, request, &mut found);
    usages_are_allowed(rules, request, &mut found);
    duration_is_within(&rules.constraints, request, &mut found);
    key_is_within(&rules.constraints, request, &mut found);
    found.violations
}

struct Findings<'a> {
    policy: &'a str,
    violations: Vec<Violation>,
}

impl Findings<'_> {
    fn add(&mut self, path: &str, value: impl Into<String>, message: impl Into<String>) {
        self.violations.push(Violation {
            policy: self.policy.to_owned(),
            path: path.to_owned(),
            value: value.into(),
            message: message.into(),
        });
    }
}

/// Values match one of the patterns and satisfy all validations; a field that says neither allows
/// no value.
fn field_allows(field: &Field, request: &Request, found: &mut Findings<'_>) {
    let path = field.attribute.path();
    let values = field.attribute.of(request);
    if values.is_empty() && field.required {
        found.add(
            &format!("{path}.required"),
            "",
            "is required, and not asked for",
        );
    }
    for value in values {
        if field.patterns.is_none() && field.rules.is_empty() {
            found.add(path, value, "is not allowed: the policy allows none");
            continue;
        }
        if let Some(patterns) = &field.patterns
            && !patterns.iter().any(|pattern| matches(pattern, &value))
        {
            let path = format!("{path}.{}", field.attribute.patterns_key());
            found.add(&path, value.clone(), not_among(patterns));
        }
        for (index, rule) in field.rules.iter().enumerate() {
            if let Err(message) = rule.check(&value, request) {
                found.add(
                    &format!("{path}.validations[{index}]"),
                    value.clone(),
                    message,
                );
            }
        }
    }
}

fn ca_is_allowed(rules: &Rules, request: &Request, found: &mut Findings<'_>) {
    if request.is_ca && !rules.is_ca {
        found.add("spec.allowed.isCA", "true", "a CA is not allowed");
    }
}

fn usages_are_allowed(rules: &Rules, request: &Request, found: &mut Findings<'_>) {
    for usage in &request.usages {
        if !rules.usages.contains(usage) {
            found.add(
                "spec.allowed.usages",
                usage.clone(),
                not_among(&rules.usages),
            );
        }
    }
}

fn duration_is_within(constraints: &Constraints, request: &Request, found: &mut Findings<'_>) {
    let Constraints {
        min_duration,
        max_duration,
        private_key: _,
    } = constraints;
    let asked = request.duration.map_or_else(String::new, written);
    if let Some(least) = min_duration
        && request.duration.is_none_or(|asked| asked < least.to_time())
    {
        let message = format!("has to be {least} or more");
        found.add("spec.constraints.minDuration", asked.clone(), message);
    }
    if let Some(most) = max_duration
        && request.duration.is_none_or(|asked| asked > most.to_time())
    {
        let message = format!("has to be {most} or less");
        found.add("spec.constraints.maxDuration", asked, message);
    }
}

fn key_is_within(constraints: &Constraints, request: &Request, found: &mut Findings<'_>) {
    let Some(wanted) = &constraints.private_key else {
        return;
    };
    let (algorithm, bits) = facts(request.key);
    let at = |key: &str| format!("spec.constraints.privateKey.{key}");
    if let Some(expected) = wanted.algorithm
        && algorithm != Some(expected)
    {
        let found_name = algorithm.map_or("unknown", Algorithm::as_str);
        let message = format!("has to be {}", expected.as_str());
        found.add(&at("algorithm"), found_name, message);
    }
    // Keys without a size, as Ed25519's, are below every minimum and every maximum.
    let written = bits.map_or_else(|| "no size".to_owned(), |bits| bits.to_string());
    if let Some(least) = wanted.min_size
        && bits.is_none_or(|bits| bits < least)
    {
        let message = format!("has to be {least} bits or more");
        found.add(&at("minSize"), written.clone(), message);
    }
    if let Some(most) = wanted.max_size
        && bits.is_some_and(|bits| bits > most)
    {
        let message = format!("has to be {most} bits or less");
        found.add(&at("maxSize"), written, message);
    }
}

fn facts(key: KeyKind) -> (Option<Algorithm>, Option<i64>) {
    match key {
        KeyKind::EcdsaP256 => (Some(Algorithm::Ecdsa), Some(256)),
        KeyKind::EcdsaP384 => (Some(Algorithm::Ecdsa), Some(384)),
        KeyKind::Ed25519 => (Some(Algorithm::Ed25519), None),
        KeyKind::Rsa { bits } => (Some(Algorithm::Rsa), i64::try_from(bits).ok()),
        KeyKind::Other(_) => (None, None),
    }
}

fn not_among(allowed: &[String]) -> String {
    if allowed.is_empty() {
        return "is not allowed: the policy allows none".to_owned();
    }
    format!("is not allowed: the policy allows {}", allowed.join(", "))
}

fn written(duration: Duration) -> String {
    GoDuration::try_from(duration).map_or_else(|_| duration.to_string(), |d| d.to_string())
}
