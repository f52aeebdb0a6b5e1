//! Renders the chart without Helm: Go's templates by a crate, and the functions that the chart uses.
//!
//! The chart keeps to what Go's templates have (`template`, not Helm's `include`) and to the
//! functions below, so that this and Helm cannot disagree about more than these few lines.

#![expect(
    clippy::unnecessary_wraps,
    reason = "functions of templates may fail, and these do not"
)]

use std::fs;
use std::path::PathBuf;

use gtmpl_ng::{Context, FuncError, Template, Value as Field};
use serde_json::{Value, json};

/// Name of the release, and what its objects are called.
pub(crate) const RELEASE: &str = "bouncert";
/// Where it goes.
pub(crate) const NAMESPACE: &str = "bouncert-system";

/// The order in which Helm installs the kinds that we have.
const ORDER: [&str; 15] = [
    "PriorityClass",
    "Namespace",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "ServiceAccount",
    "Secret",
    "ConfigMap",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "Service",
    "Deployment",
    "PrometheusRule",
    "ServiceMonitor",
];

pub(super) fn folder() -> PathBuf {
    crate::stage::repository_file("deploy/helm/bouncert")
}

fn yaml(name: &str) -> Value {
    serde_saphyr::from_str(&fs::read_to_string(folder().join(name)).unwrap()).unwrap()
}

/// The chart's own values with a merge patch of the caller's.
pub(super) fn values(changes: &Value) -> Value {
    let mut values = yaml("values.yaml");
    json_patch::merge(&mut values, changes);
    values
}

/// The documents that the chart renders to, in the order in which they are installed.
pub(super) fn render(changes: &Value) -> Vec<String> {
    let chart = yaml("Chart.yaml");
    let context = json!({
        "Values": values(changes),
        "Release": {"Name": RELEASE, "Namespace": NAMESPACE, "Service": "Helm"},
        "Chart": {"Name": chart["name"], "AppVersion": chart["appVersion"], "Version": chart["version"]},
    });
    let helpers = fs::read_to_string(folder().join("templates/_helpers.tpl")).unwrap();
    let mut documents = Vec::new();
    for path in super::super::cli::yaml_files(&folder().join("templates")) {
        let mut template = Template::default();
        template.add_funcs(&[
            ("toYaml", to_yaml as gtmpl_ng::Func),
            ("nindent", nindent),
            ("quote", quote),
            ("int", int),
        ]);
        let text = fs::read_to_string(&path).unwrap();
        let at = path.display();
        template
            .parse(format!("{}{text}", helpers.trim_end()))
            .unwrap_or_else(|error| panic!("{at}: {error}"));
        let rendered = template
            .render(&Context::from(field(&context)))
            .unwrap_or_else(|error| panic!("{at}: {error}"));
        assert!(!rendered.contains("<no value>"), "{at}: {rendered}");
        let parts = rendered.split("\n---").map(|part| part.trim().to_owned());
        documents.extend(parts.filter(|part| !part.is_empty()));
    }
    documents.sort_by_key(|document| {
        let kind = object(document)["kind"].as_str().unwrap().to_owned();
        let place = ORDER.iter().position(|known| *known == kind);
        place.unwrap_or_else(|| panic!("{kind} has no place in the order"))
    });
    documents
}

/// A rendered document as an object.
pub(super) fn object(document: &str) -> Value {
    serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{error}\n{document}"))
}

/// All rendered objects.
pub(crate) fn objects(changes: &Value) -> Vec<Value> {
    render(changes)
        .iter()
        .map(|document| object(document))
        .collect()
}

// === functions, in the form that the crate asks for ===

fn to_yaml(arguments: &[Field]) -> Result<Field, FuncError> {
    let text = serde_saphyr::to_string(&value(&arguments[0])).unwrap();
    Ok(text.trim_end().into())
}

fn nindent(arguments: &[Field]) -> Result<Field, FuncError> {
    let (width, text) = (arguments[0].to_string(), arguments[1].to_string());
    let indent = " ".repeat(width.parse().unwrap());
    let lines: Vec<&str> = text.lines().collect();
    let between = format!("\n{indent}");
    Ok(format!("{between}{}", lines.join(&between)).into())
}

fn quote(arguments: &[Field]) -> Result<Field, FuncError> {
    Ok(format!("{:?}", arguments[0].to_string()).into())
}

/// Numbers are floating in Helm, and a million would be written as 1e+06 without this.
fn int(arguments: &[Field]) -> Result<Field, FuncError> {
    Ok(arguments[0].clone())
}

fn field(value: &Value) -> Field {
    match value {
        Value::Null => Field::Nil,
        Value::Bool(flag) => (*flag).into(),
        Value::Number(number) => number.as_i64().unwrap().into(),
        Value::String(text) => text.into(),
        Value::Array(items) => Field::Array(items.iter().map(field).collect()),
        Value::Object(fields) => Field::Map(
            fields
                .iter()
                .map(|(name, value)| (name.clone(), field(value)))
                .collect(),
        ),
    }
}

fn value(field: &Field) -> Value {
    match field {
        Field::Bool(flag) => json!(flag),
        Field::Number(number) => json!(number.as_i64()),
        Field::String(text) => json!(text),
        Field::Array(items) => items.iter().map(value).collect(),
        Field::Object(fields) | Field::Map(fields) => fields
            .iter()
            .map(|(name, field)| (name.clone(), value(field)))
            .collect(),
        _ => Value::Null,
    }
}
