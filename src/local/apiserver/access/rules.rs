//! Kubernetes' RBAC: what the rules of `Role` and `ClusterRole` objects allow. Pure.

use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use super::identity::User;
use crate::local::apiserver::meta;

/// What somebody wants to do. Texts are empty where they do not apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `create`, ….
    pub verb: String,
    /// API group.
    pub group: String,
    /// Plural resource.
    pub resource: String,
    /// Subresource.
    pub subresource: String,
    /// Namespace; empty over all of them and for cluster-scoped kinds.
    pub namespace: String,
    /// Object; empty for a collection.
    pub name: String,
}

/// The smallest part of a rule: one verb on one resource, and one name where the rule gives names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grain {
    /// `ClusterRole/bouncert`, `Role/bouncert`.
    pub role: String,
    /// API group, as the rule has it.
    pub group: String,
    /// Resource with its subresource, as the rule has it.
    pub resource: String,
    /// Verb, as the rule has it.
    pub verb: String,
    /// Name of the object; empty where the rule is for all.
    pub name: String,
}

/// The rules that bind one user.
#[derive(Debug, Default)]
pub struct RuleBook(Vec<Bound>);

/// The rules of one Role, and where they hold.
#[derive(Debug)]
struct Bound {
    role: Arc<Value>,
    /// Where the rules hold; everywhere if none.
    namespace: Option<String>,
}

// === impl Attributes ===

impl Attributes {
    /// The resource as rules name it.
    fn full_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }

    /// Kubernetes' sentence for a refusal.
    pub fn refusal(&self, user: &str) -> String {
        let place = match self.namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        let (verb, resource) = (&self.verb, self.full_resource());
        let group = &self.group;
        format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {place}")
    }
}

// === impl RuleBook ===

impl RuleBook {
    /// Gathers what `bindings` give to `user` out of `roles`.
    pub fn of(user: &User, bindings: &[Arc<Value>], roles: &[Arc<Value>]) -> Self {
        let means = |binding: &&Arc<Value>| {
            let subjects = binding["subjects"].as_array();
            let namespace = meta::text(binding, "namespace");
            subjects
                .into_iter()
                .flatten()
                .any(|subject| user.is(subject, namespace))
        };
        let bound = bindings.iter().filter(means).filter_map(|binding| {
            let namespace = match meta::text(binding, "namespace") {
                "" => None,
                namespace => Some(namespace.to_owned()),
            };
            let wanted = &binding["roleRef"];
            let home = match wanted["kind"].as_str()? {
                "Role" => namespace.as_deref()?,
                _ => "",
            };
            let role = roles.iter().find(|role| {
                role["kind"] == wanted["kind"]
                    && role["metadata"]["name"] == wanted["name"]
                    && meta::text(role, "namespace") == home
            })?;
            Some(Bound {
                role: Arc::clone(role),
                namespace,
            })
        });
        Self(bound.collect())
    }

    /// The first rule that allows it.
    pub fn allows(&self, attributes: &Attributes) -> Option<Grain> {
        let here = self.0.iter().filter(|bound| {
            let place = bound.namespace.as_deref();
            place.is_none_or(|place| place == attributes.namespace)
        });
        here.flat_map(|bound| rules(&bound.role).map(|rule| (&bound.role, rule)))
            .find_map(|(role, rule)| grain(role, rule, attributes))
    }

    /// Whether the rules that hold in `namespace` (everywhere if empty) give the right.
    pub(super) fn covers(&self, wanted: &Wanted<'_>, namespace: &str) -> bool {
        let here = self.0.iter().filter(|bound| {
            let place = bound.namespace.as_deref();
            place.is_none_or(|place| place == namespace)
        });
        here.flat_map(|bound| rules(&bound.role))
            .any(|rule| gives(rule, wanted))
    }

    /// Whether they give everything on all objects.
    pub(super) fn covers_everything(&self, namespace: &str) -> bool {
        let everything = Wanted::Objects {
            group: "*",
            resource: "*",
            verb: "*",
            name: None,
        };
        self.covers(&everything, namespace)
    }

    /// The rules that hold in a namespace, for `SelfSubjectRulesReview`.
    pub fn within(&self, namespace: &str) -> Vec<Value> {
        let here = self.0.iter().filter(|bound| {
            let place = bound.namespace.as_deref();
            place.is_none_or(|place| place == namespace)
        });
        let rule = |rule: &Value| {
            json!({
                "verbs": rule["verbs"], "apiGroups": rule["apiGroups"],
                "resources": rule["resources"],
                "resourceNames": rule.get("resourceNames").cloned().unwrap_or_else(|| json!([])),
            })
        };
        here.flat_map(|bound| rules(&bound.role).map(rule).collect::<Vec<_>>())
            .collect()
    }
}

/// One verb on one resource, and one name if the rule gives names; or one verb on one URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted<'a> {
    /// A right on objects.
    Objects {
        group: &'a str,
        resource: &'a str,
        verb: &'a str,
        name: Option<&'a str>,
    },
    /// A right on a path that is no resource.
    Url { url: &'a str, verb: &'a str },
}

/// All single rights of a role; their number where there are more than `most`.
pub(super) fn rights(role: &Value, most: usize) -> Result<Vec<Wanted<'_>>, usize> {
    let length = |rule: &Value, field: &str| rule[field].as_array().map_or(0, Vec::len);
    let count = |rule: &Value| {
        let objects = length(rule, "apiGroups")
            .saturating_mul(length(rule, "resources"))
            .saturating_mul(length(rule, "resourceNames").max(1));
        objects
            .saturating_add(length(rule, "nonResourceURLs"))
            .saturating_mul(length(rule, "verbs"))
    };
    let total = rules(role).map(count).fold(0, usize::saturating_add);
    if total > most {
        return Err(total);
    }
    let mut all = Vec::new();
    for rule in rules(role) {
        let mut names: Vec<Option<&str>> = texts(rule, "resourceNames").map(Some).collect();
        if names.is_empty() {
            names.push(None);
        }
        for verb in texts(rule, "verbs") {
            for group in texts(rule, "apiGroups") {
                for resource in texts(rule, "resources") {
                    all.extend(names.iter().map(|name| Wanted::Objects {
                        group,
                        resource,
                        verb,
                        name: *name,
                    }));
                }
            }
            all.extend(texts(rule, "nonResourceURLs").map(|url| Wanted::Url { url, verb }));
        }
    }
    Ok(all)
}

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Objects {
                group,
                resource,
                verb,
                name,
            } => {
                write!(f, "{{APIGroups:[{group:?}], Resources:[{resource:?}], ")?;
                if let Some(name) = name {
                    write!(f, "ResourceNames:[{name:?}], ")?;
                }
                write!(f, "Verbs:[{verb:?}]}}")
            }
            Self::Url { url, verb } => write!(f, "{{NonResourceURLs:[{url:?}], Verbs:[{verb:?}]}}"),
        }
    }
}

/// Whether `rule` gives the right.
fn gives(rule: &Value, wanted: &Wanted<'_>) -> bool {
    let has = |field: &str, text: &str| texts(rule, field).any(|own| own == "*" || own == text);
    match wanted {
        Wanted::Objects {
            group,
            resource,
            verb,
            name,
        } => {
            let named = texts(rule, "resourceNames").next().is_none()
                || name.is_some_and(|name| texts(rule, "resourceNames").any(|own| own == name));
            let part = resource.split_once('/').map_or("", |(_, part)| part);
            let any = format!("*/{part}");
            let on = |own: &str| own == "*" || own == *resource || (!part.is_empty() && own == any);
            named
                && has("verbs", verb)
                && has("apiGroups", group)
                && texts(rule, "resources").any(on)
        }
        Wanted::Url { url, verb } => {
            let below = |own: &str| own.strip_suffix('*').is_some_and(|p| url.starts_with(p));
            has("verbs", verb)
                && texts(rule, "nonResourceURLs").any(|own| own == *url || below(own))
        }
    }
}

fn rules(role: &Value) -> impl Iterator<Item = &Value> {
    role["rules"].as_array().into_iter().flatten()
}

fn texts<'a>(rule: &'a Value, field: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let list = rule.get(field).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}

/// The grain of `rule` that allows it.
fn grain(of: &Value, rule: &Value, wanted: &Attributes) -> Option<Grain> {
    let verb = texts(rule, "verbs").find(|verb| *verb == "*" || *verb == wanted.verb)?;
    let group = texts(rule, "apiGroups").find(|group| *group == "*" || *group == wanted.group)?;
    let full = wanted.full_resource();
    let resource = texts(rule, "resources").find(|resource| {
        let of_any = resource.strip_prefix("*/");
        *resource == "*"
            || *resource == full
            || of_any.is_some_and(|part| !part.is_empty() && part == wanted.subresource)
    })?;
    let mut names = texts(rule, "resourceNames").peekable();
    let name = match names.peek() {
        None => "",
        Some(_) => names.find(|name| *name == wanted.name)?,
    };
    Some(Grain::new(of, [group, resource, verb, name]))
}

// === impl Grain ===

impl Grain {
    fn new(role: &Value, [group, resource, verb, name]: [&str; 4]) -> Self {
        let kind = role["kind"].as_str().unwrap_or_default();
        Self {
            role: format!("{kind}/{}", meta::text(role, "name")),
            group: group.to_owned(),
            resource: resource.to_owned(),
            verb: verb.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Everything that a `Role` or `ClusterRole` grants.
    pub fn all_of(of: &Value) -> Vec<Self> {
        let mut all = Vec::new();
        for rule in rules(of) {
            let mut names: Vec<&str> = texts(rule, "resourceNames").collect();
            if names.is_empty() {
                names.push("");
            }
            for group in texts(rule, "apiGroups") {
                for resource in texts(rule, "resources") {
                    for verb in texts(rule, "verbs") {
                        for name in &names {
                            all.push(Self::new(of, [group, resource, verb, name]));
                        }
                    }
                }
            }
        }
        all
    }
}

impl fmt::Display for Grain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.role, self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if !self.name.is_empty() {
            write!(f, " {:?}", self.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(binding: Value, role: Value) -> RuleBook {
        let clerk = User::service_account("books", "clerk");
        RuleBook::of(&clerk, &[Arc::new(binding)], &[Arc::new(role)])
    }

    fn bound(kind: &str, role_kind: &str, rule: &Value) -> RuleBook {
        let subject = json!({"kind": "ServiceAccount", "name": "clerk", "namespace": "books"});
        let mut metadata = json!({"name": "clerks"});
        if kind == "RoleBinding" {
            metadata["namespace"] = json!("books");
        }
        let mut object = json!({"kind": role_kind, "metadata": {"name": "clerk"}, "rules": [rule]});
        if role_kind == "Role" {
            object["metadata"]["namespace"] = json!("books");
        }
        let binding = json!({
            "kind": kind, "metadata": metadata, "subjects": [subject],
            "roleRef": {"kind": role_kind, "name": "clerk"},
        });
        book(binding, object)
    }

    fn wish(verb: &str, resource: &str, namespace: &str, name: &str) -> Attributes {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes {
            verb: verb.to_owned(),
            group: String::new(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    fn pods(verbs: &[&str]) -> Value {
        json!({"apiGroups": [""], "resources": ["pods"], "verbs": verbs})
    }

    #[test]
    fn a_cluster_role_holds_where_it_is_bound() {
        let everywhere = bound("ClusterRoleBinding", "ClusterRole", &pods(&["get"]));
        assert!(
            everywhere
                .allows(&wish("get", "pods", "shops", "a"))
                .is_some()
        );
        let books = bound("RoleBinding", "ClusterRole", &pods(&["list"]));
        assert!(books.allows(&wish("list", "pods", "books", "")).is_some());
        assert!(books.allows(&wish("list", "pods", "", "")).is_none());
        let role = bound("RoleBinding", "Role", &pods(&["list"]));
        assert!(role.allows(&wish("list", "pods", "books", "")).is_some());
        assert!(role.allows(&wish("list", "pods", "shops", "")).is_none());
    }

    #[test]
    fn a_subresource_is_a_resource_of_its_own() {
        let plain = bound("RoleBinding", "Role", &pods(&["create"]));
        assert!(
            plain
                .allows(&wish("create", "pods/eviction", "books", "a"))
                .is_none()
        );
        let rule = json!({"apiGroups": [""], "resources": ["*/eviction"], "verbs": ["*"]});
        let any = bound("RoleBinding", "Role", &rule);
        let grain = any
            .allows(&wish("create", "pods/eviction", "books", "a"))
            .unwrap();
        assert_eq!(grain.to_string(), "Role/clerk: * */eviction");
        assert!(any.allows(&wish("create", "pods", "books", "")).is_none());
    }

    #[test]
    fn names_narrow_a_rule_and_never_fit_a_collection() {
        let mut rule = pods(&["get", "list"]);
        rule["resourceNames"] = json!(["ledger"]);
        let book = bound("RoleBinding", "Role", &rule);
        assert!(
            book.allows(&wish("get", "pods", "books", "ledger"))
                .is_some()
        );
        assert!(book.allows(&wish("get", "pods", "books", "till")).is_none());
        assert!(book.allows(&wish("list", "pods", "books", "")).is_none());
        let whole = json!({"kind": "Role", "metadata": {"name": "clerk"}, "rules": [rule]});
        assert_eq!(Grain::all_of(&whole).len(), 2);
    }

    #[test]
    fn a_refusal_says_who_what_and_where() {
        assert_eq!(
            wish("list", "pods", "", "").refusal("clerk"),
            "User \"clerk\" cannot list resource \"pods\" in API group \"\" at the cluster scope"
        );
    }

    #[test]
    fn a_right_is_covered_by_a_rule_that_is_as_wide() {
        let holder = json!({"apiGroups": ["", "apps"], "resources": ["pods", "*/scale"],
            "verbs": ["get", "list"]});
        let role = |rule: Value| json!({"kind": "Role", "rules": [rule]});
        let covered = |rule: &Value, namespace: &str| {
            let book = bound("RoleBinding", "Role", &holder);
            let role = role(rule.clone());
            let rights = rights(&role, 100).unwrap();
            rights.iter().all(|right| book.covers(right, namespace))
        };
        let single = |group: &str, resource: &str, verb: &str| json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]});
        assert!(covered(&single("", "pods", "get"), "books"));
        assert!(covered(
            &single("apps", "statefulsets/scale", "list"),
            "books"
        ));
        let mut named = single("", "pods", "get");
        named["resourceNames"] = json!(["ledger"]);
        assert!(covered(&named, "books"));
        for (wider, namespace) in [
            (single("", "pods", "*"), "books"),
            (single("", "*", "get"), "books"),
            (single("*", "pods", "get"), "books"),
            (single("", "pods", "delete"), "books"),
            (single("", "pods/log", "get"), "books"),
            (single("", "pods", "get"), "shops"),
            (single("", "pods", "get"), ""),
            (
                json!({"nonResourceURLs": ["/healthz"], "verbs": ["get"]}),
                "books",
            ),
        ] {
            assert!(!covered(&wider, namespace), "{wider} {namespace}");
        }
        let many: Vec<String> = (0..400).map(|n| n.to_string()).collect();
        let product = role(json!({"apiGroups": many, "resources": many, "verbs": many}));
        assert_eq!(rights(&product, 100).unwrap_err(), 64_000_000);
    }

    #[test]
    fn a_rule_for_one_name_does_not_cover_all() {
        let holder = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"],
            "resourceNames": ["ledger"]});
        let book = bound("RoleBinding", "Role", &holder);
        let wanted = |name| Wanted::Objects {
            group: "",
            resource: "pods",
            verb: "get",
            name,
        };
        assert!(book.covers(&wanted(Some("ledger")), "books"));
        assert!(!book.covers(&wanted(Some("other")), "books"));
        assert!(!book.covers(&wanted(None), "books"));
    }
}
