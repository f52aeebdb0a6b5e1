//! Whether labels are selected. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Whether `labels` hold every pair of a Service's `selector`; an empty selector selects nothing.
pub fn selected(selector: Option<&Labels>, labels: Option<&Labels>) -> bool {
    let Some(selector) = selector.filter(|s| !s.is_empty()) else {
        return false;
    };
    let labels = labels.unwrap_or(const { &Labels::new() });
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether `labels` fulfil a label selector; an empty selector selects everything, and one with an
/// unknown operator nothing.
pub fn fulfils(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let labels = labels.unwrap_or(const { &Labels::new() });
    let pairs = selector.match_labels.iter().flatten();
    let expressions = selector.match_expressions.iter().flatten();
    pairs
        .into_iter()
        .all(|(key, value)| labels.get(key) == Some(value))
        && expressions.into_iter().all(|wanted| {
            let value = labels.get(&wanted.key);
            let listed =
                |value: &String| wanted.values.iter().flatten().any(|listed| listed == value);
            match wanted.operator.as_str() {
                "In" => value.is_some_and(listed),
                "NotIn" => !value.is_some_and(listed),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn a_service_without_a_selector_selects_nothing() {
        let shop = labels(&[("app", "shop"), ("tier", "front")]);
        assert!(selected(Some(&labels(&[("app", "shop")])), Some(&shop)));
        assert!(!selected(Some(&labels(&[("app", "till")])), Some(&shop)));
        assert!(!selected(Some(&Labels::new()), Some(&shop)));
        assert!(!selected(None, Some(&shop)));
    }

    #[test]
    fn expressions_and_pairs_must_all_hold() {
        let selector: LabelSelector = serde_json::from_value(json!({
            "matchLabels": {"app": "shop"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["front", "back"]},
                {"key": "old", "operator": "DoesNotExist"},
                {"key": "zone", "operator": "NotIn", "values": ["north"]}
            ]
        }))
        .unwrap();
        let good = labels(&[("app", "shop"), ("tier", "back")]);
        assert!(fulfils(&selector, Some(&good)));
        let north = labels(&[("app", "shop"), ("tier", "back"), ("zone", "north")]);
        assert!(!fulfils(&selector, Some(&north)));
        assert!(!fulfils(&selector, None));
        assert!(fulfils(&LabelSelector::default(), None));
    }
}
