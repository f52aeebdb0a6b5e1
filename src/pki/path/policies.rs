//! Certificate policies (RFC 5280 6.1): OpenSSL's clients do not look at them, Go's and Java's do.

use std::collections::HashSet;

use super::certificate::Certificate;
use super::defect::Defect;

/// anyPolicy.
const ANY: &str = "2.5.29.32.0";

/// Refuses a path, leaf first and root last, on which a CA requires a policy that the leaf does not have.
pub(in crate::pki) fn check(path: &[&Certificate]) -> Result<(), Defect> {
    // A root is not part of the path (RFC 5280 6.1): what it says of policies counts nowhere.
    let Some((_, [leaf, above @ ..])) = path.split_last() else {
        return Ok(());
    };
    let mut left: Option<(u32, &Certificate)> = None;
    let mut valid: Option<HashSet<&str>> = None;
    for certificate in above.iter().rev() {
        if let Some((count, _)) = &mut left
            && !certificate.is_self_issued()
        {
            *count = count.saturating_sub(1);
        }
        if let Some(after) = certificate.policies.required_after
            && left.is_none_or(|(count, _)| after < count)
        {
            left = Some((after, certificate));
        }
        valid = narrow(valid, certificate);
    }
    let Some((count, requiring)) = left else {
        return Ok(());
    };
    // The leaf counts as one more.
    if count > 1 {
        return Ok(());
    }
    if let Some(mapping) = above.iter().find(|it| it.policies.has_mappings) {
        return Err(Defect::PolicyMappings {
            certificate: mapping.subject(),
        });
    }
    let own = leaf.policies.of.as_ref();
    let is_any = own.is_some_and(|own| own.iter().any(|policy| policy == ANY));
    let is_valid = match (own, &valid) {
        (None, _) => false,
        (Some(own), None) => !own.is_empty(),
        (Some(own), Some(valid)) => {
            !valid.is_empty() && (is_any || own.iter().any(|policy| valid.contains(&**policy)))
        }
    };
    if is_valid {
        Ok(())
    } else {
        Err(Defect::PolicyRequired {
            certificate: requiring.subject(),
            leaf: leaf.subject(),
        })
    }
}

/// The policies that are valid below `certificate`; `None` stands for all.
fn narrow<'a>(
    valid: Option<HashSet<&'a str>>,
    certificate: &'a Certificate,
) -> Option<HashSet<&'a str>> {
    let Some(own) = &certificate.policies.of else {
        return Some(HashSet::new());
    };
    if own.iter().any(|policy| policy == ANY) {
        return valid;
    }
    let own: HashSet<&str> = own.iter().map(String::as_str).collect();
    Some(match valid {
        None => own,
        Some(valid) => valid.intersection(&own).copied().collect(),
    })
}
