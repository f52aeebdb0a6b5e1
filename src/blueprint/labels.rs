//! Labels and annotations of the objects of a PgBouncer
//! (docs/kubedb-compatibility.md, "Labels and annotations").

use std::collections::BTreeMap;

use kube::ResourceExt;

use crate::api::PgBouncer;
use crate::api::annotations::SERVING_LABEL;
use crate::cluster::Owner;

/// Labels, annotations, selectors.
pub type Map = BTreeMap<String, String>;

/// What `app.kubernetes.io/name` says on every object made for a PgBouncer.
const KIND: &str = "pgbouncers.kubedb.com";
const NAME: &str = "app.kubernetes.io/name";
/// Label of every object made for a PgBouncer: its name.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// Selects the objects made for any PgBouncer.
pub const OURS: &str = "app.kubernetes.io/name=pgbouncers.kubedb.com";
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const VERSION: &str = "app.kubernetes.io/version";
const COMPONENT: &str = "app.kubernetes.io/component";

/// What all objects of a PgBouncer have in common, and what selects its pods.
pub fn selector(name: &str) -> Map {
    map([(NAME, KIND), (INSTANCE, name), (MANAGED_BY, "kubedb.com")])
}

/// What selects the pods that new clients are sent to: draining takes the last label off a pod.
pub fn serving_selector(name: &str) -> Map {
    let mut labels = selector(name);
    labels.insert(SERVING_LABEL.to_owned(), "true".to_owned());
    labels
}

/// The labels of every object made for `bouncer`: its own go along, but for those that say what it
/// is itself.
pub fn offshoot(bouncer: &PgBouncer) -> Map {
    let own = bouncer.labels().iter().filter(|(key, _)| {
        ![NAME, VERSION, INSTANCE, MANAGED_BY].contains(&key.as_str()) && !is_kubedb(key)
    });
    let mut labels: Map = own
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    labels.insert(COMPONENT.to_owned(), "connection-pooler".to_owned());
    labels.extend(selector(&bouncer.name_any()));
    labels
}

/// The object's annotations that go along to its AppBinding.
pub fn carried_annotations(bouncer: &PgBouncer) -> Map {
    bouncer
        .annotations()
        .iter()
        .filter(|(key, _)| {
            !is_kubedb(key) && !key.starts_with("kubectl.kubernetes.io/") && !is_ours(key)
        })
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// The PgBouncer that an object with these labels was made for; `None` if for none.
pub fn instance(labels: &Map) -> Option<&str> {
    let is_ours = labels.get(NAME).is_some_and(|kind| kind == KIND);
    labels.get(INSTANCE).filter(|_| is_ours).map(String::as_str)
}

/// A selector in the form that lists take.
pub fn to_selector_text(labels: &Map) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(",")
}

/// The owner of the Secrets of `bouncer`: also of those that an earlier PgBouncer of that name has left
/// when it was deleted. They have our labels and no controller.
pub fn heir(bouncer: &PgBouncer) -> Owner {
    Owner::of(bouncer).inheriting(NAME, KIND)
}

/// Whether `labels` belong to another object's Secret: they name a kind or an
/// instance that is not ours.
pub fn are_foreign(labels: &Map, name: &str) -> bool {
    selector(name)
        .iter()
        .filter(|(key, _)| [NAME, INSTANCE].contains(&key.as_str()))
        .any(|(key, ours)| labels.get(key).is_some_and(|theirs| theirs != ours))
}

pub(super) fn map<const N: usize>(pairs: [(&str, &str); N]) -> Map {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Whether a key lies in the domain `kubedb.com` or below it.
fn is_kubedb(key: &str) -> bool {
    key.split_once('/')
        .is_some_and(|(domain, _)| domain == "kubedb.com" || domain.ends_with(".kubedb.com"))
}

fn is_ours(key: &str) -> bool {
    key.starts_with("bouncert.dev/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blueprint::testing;

    #[test]
    fn the_objects_own_labels_go_along_but_not_those_of_kubedb() {
        let mut bouncer = testing::bouncer("billing");
        bouncer.metadata.labels = Some(map([
            ("team", "ledger"),
            ("app.kubernetes.io/instance", "other"),
            ("ops.kubedb.com/x", "y"),
        ]));
        let labels = offshoot(&bouncer);
        assert_eq!(labels.get("team").map(String::as_str), Some("ledger"));
        assert_eq!(labels.get(INSTANCE).map(String::as_str), Some("billing"));
        assert_eq!(
            labels.get(COMPONENT).map(String::as_str),
            Some("connection-pooler")
        );
        assert!(!labels.contains_key("ops.kubedb.com/x"));
    }

    #[test]
    fn a_secret_of_another_instance_is_foreign_and_an_unlabelled_one_is_not() {
        assert!(are_foreign(&map([(INSTANCE, "orders")]), "billing"));
        assert!(!are_foreign(&selector("billing"), "billing"));
        assert!(!are_foreign(&Map::new(), "billing"));
    }
}
