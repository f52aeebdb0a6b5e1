//! Label and field selectors.

mod requirements;

use std::collections::BTreeSet;

use serde_json::Value;

use super::error::ApiError;

/// What a list or a watch lets through.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<Field>,
}

/// One part of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    Missing(String),
    Above(String, i64),
    Below(String, i64),
}

/// One part of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    pointer: String,
    value: String,
    equal: bool,
}

/// Requirements of one selector. Each is compared with each object and each change.
const REQUIREMENTS_MAX: usize = 100;
/// Values of one selector, over all its requirements.
const VALUES_MAX: usize = 1_000;

/// Fields of every object that can be selected on.
const COMMON_FIELDS: &[&str] = &["metadata.name", "metadata.namespace"];

/// Further fields, by kind.
const KIND_FIELDS: &[(&str, &[&str])] = &[
    (
        "Pod",
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.serviceAccountName",
            "status.phase",
            "status.podIP",
        ],
    ),
    (
        "Event",
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "reason",
            "reportingComponent",
            "reportingController",
            "source",
            "type",
        ],
    ),
    ("Secret", &["type"]),
    ("Namespace", &["status.phase"]),
    ("Service", &["spec.clusterIP", "spec.type"]),
];

impl Selector {
    /// Reads both selectors for objects of `kind`.
    pub fn parse(kind: &str, labels: Option<&str>, fields: Option<&str>) -> Result<Self, ApiError> {
        let labels = requirements::parse(labels.unwrap_or_default())?;
        let fields = parse_fields(kind, fields.unwrap_or_default())?;
        if labels.len() + fields.len() > REQUIREMENTS_MAX {
            return Err(ApiError::BadRequest(format!(
                "a selector has at most {REQUIREMENTS_MAX} requirements, and this one has {}",
                labels.len() + fields.len()
            )));
        }
        Ok(Self { labels, fields })
    }

    /// A `LabelSelector` object, `matchLabels` and `matchExpressions`.
    pub fn of_object(selector: &Value) -> Self {
        let mut labels = Vec::new();
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            labels.push(Requirement::In(key.clone(), BTreeSet::from([value])));
        }
        for expression in selector["matchExpressions"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let key = expression["key"].as_str().unwrap_or_default().to_owned();
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values
                .filter_map(Value::as_str)
                .map(ToOwned::to_owned)
                .collect();
            labels.push(match expression["operator"].as_str() {
                Some("NotIn") => Requirement::NotIn(key, values),
                Some("Exists") => Requirement::Exists(key),
                Some("DoesNotExist") => Requirement::Missing(key),
                _ => Requirement::In(key, values),
            });
        }
        Self {
            labels,
            fields: Vec::new(),
        }
    }

    /// Whether everything is let through.
    pub const fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether `object` is let through.
    pub fn matches(&self, object: &Value) -> bool {
        let number = |text: Option<&str>| text?.parse::<i64>().ok();
        let label = |key: &str| object["metadata"]["labels"][key].as_str();
        let labels = self.labels.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => label(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => {
                label(key).is_none_or(|value| !values.contains(value))
            }
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Missing(key) => label(key).is_none(),
            Requirement::Above(key, bound) => number(label(key)).is_some_and(|n| n > *bound),
            Requirement::Below(key, bound) => number(label(key)).is_some_and(|n| n < *bound),
        });
        labels
            && self.fields.iter().all(|field| {
                let found = object.pointer(&field.pointer).and_then(Value::as_str);
                (found.unwrap_or_default() == field.value) == field.equal
            })
    }
}

fn parse_fields(kind: &str, text: &str) -> Result<Vec<Field>, ApiError> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let parts = parts.take(REQUIREMENTS_MAX + 1);
    parts.map(|part| parse_field(kind, part)).collect()
}

fn parse_field(kind: &str, part: &str) -> Result<Field, ApiError> {
    let (path, value, equal) = part
        .split_once("!=")
        .map(|(path, value)| (path, value, false))
        .or_else(|| {
            part.split_once("==")
                .map(|(path, value)| (path, value, true))
        })
        .or_else(|| {
            part.split_once('=')
                .map(|(path, value)| (path, value, true))
        })
        .ok_or_else(|| ApiError::BadRequest(format!("invalid field selector: {part:?}")))?;
    let of_kind = KIND_FIELDS
        .iter()
        .find(|(known, _)| *known == kind)
        .map_or(&[][..], |row| row.1);
    if !COMMON_FIELDS.contains(&path) && !of_kind.contains(&path) {
        return Err(ApiError::BadRequest(format!(
            "field label not supported: {path}"
        )));
    }
    // The newer face of an event is stored in the older shape.
    let stored = match (kind, path) {
        ("Event", "source") => "source.component".to_owned(),
        ("Event", "reportingController") => "reportingComponent".to_owned(),
        ("Event", path) => path.replace("regarding.", "involvedObject."),
        (_, path) => path.to_owned(),
    };
    let pointer = format!("/{}", stored.replace('.', "/"));
    Ok(Field {
        pointer,
        value: value.to_owned(),
        equal,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lets_through(labels: &str, object: &Value) -> bool {
        Selector::parse("Pod", Some(labels), None)
            .unwrap()
            .matches(object)
    }

    #[test]
    fn every_form_of_label_requirement_is_understood() {
        let pod = json!({"metadata": {"labels": {"app": "ledger", "tier": "edge", "n": "2"}}});
        for yes in [
            "app=ledger",
            "app==ledger,tier!=core",
            "app in (ledger, archive),tier",
            "zone notin (a,b)",
            "!zone",
            "",
            " app = ledger , tier ",
            "app in (ledger,,)",
            "app in(ledger)",
            "in!=x",
            "n>1,n<3",
            "zone notin (,)",
        ] {
            assert!(lets_through(yes, &pod), "{yes}");
        }
        for no in [
            "app=archive",
            "app notin (ledger)",
            "zone",
            "!tier",
            "zone=",
            "app in (x)",
            "n>2",
            "n<2",
            "zone>0",
        ] {
            assert!(!lets_through(no, &pod), "{no}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["app in ledger)", "app within (a)", "=x", "a b"] {
            assert!(Selector::parse("Pod", Some(text), None).is_err(), "{text}");
        }
        for text in [
            ",",
            "a,",
            ",a",
            "a,,b",
            "a=b,",
            "a==b=c",
            "!",
            "!a=b",
            "a in b",
            "a in ()",
            "a in (b",
            "a in (b))",
            "a>x",
            "a>",
            "(a)",
            "a notin",
            "/x",
            "x/",
            "a/b/c",
            "-a",
            "a=b c",
            "a=-b",
            "a!",
            "a=!b",
            "in in in",
        ] {
            let error = Selector::parse("Pod", Some(text), None).unwrap_err();
            assert_eq!(error.code().0, 400, "{text}");
        }
        assert!(Selector::parse("Secret", None, Some("spec.nodeName=x")).is_err());
        assert!(Selector::parse("Pod", None, Some("metadata.name")).is_err());
    }

    #[test]
    fn requirements_and_their_values_are_bounded() {
        let many = |n: usize| vec!["a"; n].join(",");
        assert!(Selector::parse("Pod", Some(&many(REQUIREMENTS_MAX)), None).is_ok());
        for broken in [
            many(REQUIREMENTS_MAX + 1),
            format!("a in ({})", many(VALUES_MAX + 1)),
            many(9_000),
        ] {
            let error = Selector::parse("Pod", Some(&broken), None).unwrap_err();
            assert!(error.to_string().contains("at most"), "{error}");
        }
        let fields = vec!["metadata.name=a"; REQUIREMENTS_MAX + 1].join(",");
        assert!(Selector::parse("Pod", None, Some(&fields)).is_err());
    }

    #[test]
    fn fields_are_compared_as_text_and_missing_is_empty() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "local"}});
        let matches = |text| {
            Selector::parse("Pod", None, Some(text))
                .unwrap()
                .matches(&pod)
        };
        assert!(matches("metadata.name=p,spec.nodeName!=other"));
        assert!(matches("status.phase="));
        assert!(!matches("metadata.name=q"));
    }

    #[test]
    fn a_selector_object_matches_like_its_text() {
        let selector = json!({
            "matchLabels": {"app": "ledger"},
            "matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}],
        });
        let pod = json!({"metadata": {"labels": {"app": "ledger"}}});
        assert!(Selector::of_object(&selector).matches(&pod));
        let zoned = json!({"metadata": {"labels": {"app": "ledger", "zone": "a"}}});
        assert!(!Selector::of_object(&selector).matches(&zoned));
    }
}
