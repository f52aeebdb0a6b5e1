//! Label and field selectors.

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
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

/// One part of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    pointer: String,
    value: String,
    equal: bool,
}

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
        let labels = parse_labels(labels.unwrap_or_default())?;
        let fields = parse_fields(kind, fields.unwrap_or_default())?;
        Ok(Self { labels, fields })
    }

    /// A `LabelSelector` object, `matchLabels` and `matchExpressions`.
    pub fn of_object(selector: &Value) -> Self {
        let mut labels = Vec::new();
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            labels.push(Requirement::In(key.clone(), vec![value]));
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
        let label = |key: &str| object["metadata"]["labels"][key].as_str();
        let labels = self.labels.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => {
                label(key).is_some_and(|value| values.iter().any(|wanted| wanted == value))
            }
            Requirement::NotIn(key, values) => {
                label(key).is_none_or(|value| values.iter().all(|refused| refused != value))
            }
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Missing(key) => label(key).is_none(),
        });
        labels
            && self.fields.iter().all(|field| {
                let found = object.pointer(&field.pointer).and_then(Value::as_str);
                (found.unwrap_or_default() == field.value) == field.equal
            })
    }
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>, ApiError> {
    split_outside_parentheses(text)
        .into_iter()
        .map(parse_requirement)
        .collect()
}

/// Splits at commas that are not inside `( … )`.
fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_u32, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
        .into_iter()
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect()
}

fn parse_requirement(part: &str) -> Result<Requirement, ApiError> {
    let own = |text: &str| text.trim().to_owned();
    if let Some((key, value)) = part.split_once("!=") {
        return checked(part, Requirement::NotIn(own(key), vec![own(value)]));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return checked(part, Requirement::In(own(key), vec![own(value)]));
    }
    if let Some(key) = part.strip_prefix('!') {
        return checked(part, Requirement::Missing(own(key)));
    }
    if let Some((head, list)) = part.split_once('(') {
        let values = list
            .trim_end()
            .strip_suffix(')')
            .ok_or_else(|| unreadable(part))?;
        let values = values.split(',').map(own).collect();
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => checked(part, Requirement::In(own(key), values)),
            (Some(key), Some("notin"), None) => checked(part, Requirement::NotIn(own(key), values)),
            _ => Err(unreadable(part)),
        };
    }
    checked(part, Requirement::Exists(own(part)))
}

fn checked(part: &str, requirement: Requirement) -> Result<Requirement, ApiError> {
    let (Requirement::In(key, _)
    | Requirement::NotIn(key, _)
    | Requirement::Exists(key)
    | Requirement::Missing(key)) = &requirement;
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./".contains(letter);
    if key.is_empty() || !key.chars().all(plain) {
        return Err(unreadable(part));
    }
    Ok(requirement)
}

fn unreadable(part: &str) -> ApiError {
    ApiError::BadRequest(format!("unable to parse requirement: {part:?}"))
}

fn parse_fields(kind: &str, text: &str) -> Result<Vec<Field>, ApiError> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
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
        let pod = json!({"metadata": {"labels": {"app": "ledger", "tier": "edge"}}});
        for yes in [
            "app=ledger",
            "app==ledger,tier!=core",
            "app in (ledger, archive),tier",
            "zone notin (a,b)",
            "!zone",
            "",
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
        ] {
            assert!(!lets_through(no, &pod), "{no}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["app in ledger)", "app within (a)", "=x", "a b"] {
            assert!(Selector::parse("Pod", Some(text), None).is_err(), "{text}");
        }
        assert!(Selector::parse("Secret", None, Some("spec.nodeName=x")).is_err());
        assert!(Selector::parse("Pod", None, Some("metadata.name")).is_err());
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
