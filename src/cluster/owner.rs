//! Whose an object is. Pure.
//!
//! An object is the owner's if the owner is its controller (`metadata.ownerReferences`, by UID). Any
//! other is [`Foreign`] and stays as it is, unless its holder has put the annotation
//! `bouncert.dev/adopt` on it and it has no controller.

use std::fmt;

use kube::{Resource, ResourceExt};

use super::{ClusterError, reference};
use crate::api::annotations::ADOPT;
use crate::api::holder::{Holder, controller, controller_reference, is_controlled_by};
use crate::names::ObjectRef;

/// The object that others are made for, and whose controller reference they bear.
#[derive(Clone, Debug)]
pub struct Owner {
    kind: String,
    name: String,
    uid: String,
    /// UID of an object of the owner's that may be a controller in its place.
    through: Option<String>,
    /// Whether an object that the owner's kind labels as its own, and that has no controller, is one
    /// that an earlier owner of that name has left.
    inherits: Option<(&'static str, &'static str)>,
}

/// An object that is not the owner's, at a name that is needed for one of the owner's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Its kind.
    pub kind: String,
    /// Where it is.
    pub at: ObjectRef,
    /// Its controller.
    pub holder: Option<Holder>,
    /// Kind and name of the owner that needs the name.
    pub needed_by: (String, String),
}

/// Whose the object at a name is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is no object.
    Absent,
    /// The owner's, or handed over to it.
    Ours {
        /// UID of the object.
        uid: String,
        /// Its version.
        version: Option<String>,
        /// Whether the owner itself is the controller, or may become it.
        directly: bool,
    },
    /// Not the owner's.
    Foreign(Box<Foreign>),
}

// === impl Owner ===

impl Owner {
    /// The owner that `object` is. Without a UID it owns nothing.
    pub fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        let meta = object.meta();
        Self::named::<K>(
            meta.name.as_deref().unwrap_or_default(),
            meta.uid.as_deref().unwrap_or_default(),
        )
    }

    /// The owner of that kind, name and UID.
    pub fn named<K: Resource<DynamicType = ()>>(name: &str, uid: &str) -> Self {
        Self {
            kind: K::kind(&()).into_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            through: None,
            inherits: None,
        }
    }

    /// The same; what the object with that UID controls is the owner's as well.
    #[must_use]
    pub fn through(self, uid: Option<String>) -> Self {
        Self {
            through: uid.filter(|uid| !uid.is_empty()),
            ..self
        }
    }

    /// The same; an object without a controller whose label `kind` has the value `value`, and whose
    /// label `app.kubernetes.io/instance` names the owner, was left by an earlier owner of that name.
    #[must_use]
    pub fn inheriting(self, kind: &'static str, value: &'static str) -> Self {
        Self {
            inherits: Some((kind, value)),
            ..self
        }
    }

    /// Whose an object is.
    pub fn standing<K: Resource>(&self, kind: &str, object: &K) -> Standing {
        let ours = |directly| Standing::Ours {
            uid: object.uid().unwrap_or_default(),
            version: object.resource_version(),
            directly,
        };
        let through = self.through.as_deref().unwrap_or_default();
        match controller_reference(object) {
            Some(_) if is_controlled_by(object, &self.uid) => ours(true),
            Some(_) if is_controlled_by(object, through) => ours(false),
            None if !self.uid.is_empty() && self.may_take(object) => ours(true),
            _ => Standing::Foreign(Box::new(Foreign {
                kind: kind.to_owned(),
                at: reference(object),
                holder: controller(object),
                needed_by: (self.kind.clone(), self.name.clone()),
            })),
        }
    }

    /// Refuses an object that is not the owner's.
    pub fn check<K: Resource<DynamicType = ()>>(&self, object: &K) -> Result<(), ClusterError> {
        match self.standing(&K::kind(&()), object) {
            Standing::Foreign(foreign) => Err(ClusterError::Foreign(foreign)),
            Standing::Absent | Standing::Ours { .. } => Ok(()),
        }
    }

    /// Whether an object without a controller is the owner's to take.
    fn may_take<K: Resource>(&self, object: &K) -> bool {
        let is_handed_over = object.annotations().get(ADOPT) == Some(&self.name);
        let labels = object.labels();
        let is_left = self.inherits.is_some_and(|(kind, value)| {
            labels.get(kind).is_some_and(|is| is == value)
                && labels.get("app.kubernetes.io/instance") == Some(&self.name)
        });
        is_handed_over || is_left
    }
}

// === impl Foreign ===

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, at, .. } = self;
        let (owner_kind, owner) = &self.needed_by;
        write!(f, "{kind} {at} does not belong to {owner_kind} {owner}: ")?;
        match &self.holder {
            Some(holder) if holder.kind == *owner_kind && holder.name == *owner => write!(
                f,
                "its controller is an earlier {holder}; the garbage collector takes it away"
            ),
            Some(holder) => write!(
                f,
                "its controller is {holder}. It stays as it is; rename the {owner_kind}, or delete \
                 the {kind}"
            ),
            None if kind == "Pod" => write!(
                f,
                "it has no controller. It stays as it is; rename the {owner_kind}, or delete the \
                 {kind}"
            ),
            None => write!(
                f,
                "it has no controller. It stays as it is; rename the {owner_kind}, or hand the \
                 {kind} over with the annotation {ADOPT}: {owner}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use serde_json::{Value, json};

    use super::*;
    use crate::api::PgBouncer;

    fn owner() -> Owner {
        let owner: PgBouncer = serde_json::from_value(json!({
            "apiVersion": "kubedb.com/v1", "kind": "PgBouncer",
            "metadata": {"name": "till", "namespace": "shop", "uid": "7"},
            "spec": {"version": "1.18.0", "database": {
                "databaseName": "ledger", "databaseRef": {"name": "books", "namespace": "vault"},
            }},
        }))
        .unwrap();
        Owner::of(&owner)
    }

    fn service(metadata: &Value) -> Service {
        let mut object = json!({ "metadata": {"name": "till", "namespace": "shop", "uid": "s"} });
        json_patch::merge(&mut object["metadata"], metadata);
        serde_json::from_value(object).unwrap()
    }

    fn owned_by(kind: &str, name: &str, uid: &str, controller: bool) -> Value {
        json!({ "ownerReferences": [{
            "apiVersion": "v1", "kind": kind, "name": name, "uid": uid, "controller": controller,
        }]})
    }

    fn is_ours(owner: &Owner, metadata: &Value) -> bool {
        let standing = owner.standing("Service", &service(metadata));
        matches!(standing, Standing::Ours { .. })
    }

    #[test]
    fn an_object_is_ours_by_the_uid_of_its_controller_and_by_nothing_else() {
        let owner = owner();
        assert!(is_ours(&owner, &owned_by("PgBouncer", "till", "7", true)));
        assert!(!is_ours(&owner, &owned_by("PgBouncer", "till", "6", true)));
        assert!(!is_ours(&owner, &owned_by("PgBouncer", "till", "7", false)));
        let labels = json!({ "labels": {
            "app.kubernetes.io/name": "pgbouncers.kubedb.com", "app.kubernetes.io/instance": "till",
        }});
        assert!(!is_ours(&owner, &labels));
        let heir = owner
            .clone()
            .inheriting("app.kubernetes.io/name", "pgbouncers.kubedb.com");
        assert!(is_ours(&heir, &labels));
        assert!(!is_ours(&heir, &json!({})));
        let of_workload = owned_by("PetSet", "till", "9", true);
        assert!(!is_ours(&owner, &of_workload));
        assert!(is_ours(&owner.through(Some("9".into())), &of_workload));
    }

    #[test]
    fn an_object_without_a_controller_can_be_handed_over_and_one_with_a_controller_cannot() {
        let adopt = |name: &str| json!({ "annotations": { ADOPT: name } });
        assert!(is_ours(&owner(), &adopt("till")));
        assert!(!is_ours(&owner(), &adopt("other")));
        let mut held = owned_by("Deployment", "web", "3", true);
        json_patch::merge(&mut held, &adopt("till"));
        assert!(!is_ours(&owner(), &held));
        let mut noted = owned_by("Deployment", "web", "3", false);
        json_patch::merge(&mut noted, &adopt("till"));
        assert!(is_ours(&owner(), &noted), "it is not the controller");
    }

    #[test]
    fn an_owner_that_has_no_uid_owns_nothing() {
        let mut nobody = owner();
        nobody.uid = String::new();
        assert!(!is_ours(&nobody, &owned_by("PgBouncer", "till", "", true)));
        assert!(!is_ours(
            &nobody,
            &json!({ "annotations": { ADOPT: "till" } })
        ));
    }

    #[test]
    fn what_is_foreign_is_named_with_its_holder_and_the_way_out() {
        let told = |metadata: &Value| match owner().standing("Service", &service(metadata)) {
            Standing::Foreign(foreign) => foreign.to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(
            told(&json!({})),
            "Service shop/till does not belong to PgBouncer till: it has no controller. It stays as \
             it is; rename the PgBouncer, or hand the Service over with the annotation \
             bouncert.dev/adopt: till"
        );
        assert_eq!(
            told(&owned_by("Deployment", "web", "3", true)),
            "Service shop/till does not belong to PgBouncer till: its controller is Deployment web. \
             It stays as it is; rename the PgBouncer, or delete the Service"
        );
        let earlier = told(&owned_by("PgBouncer", "till", "6", true));
        assert!(
            earlier.ends_with("the garbage collector takes it away"),
            "{earlier}"
        );
    }
}
