//! The only writes that state or delete an object by its name.
//!
//! One that is not there is created, and never applied: of two creators one is refused. One that is
//! the [`Owner`]'s is applied with force, on condition of its UID: an object that has taken its place
//! since is refused as well. A deletion is on condition of the UID that was read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use serde_json::{Map, Value, json};

use super::owner::{Owner, Standing};
use super::{Cluster, ClusterError, FIELD_MANAGER, Namespaced, bounded, reference};
use crate::names::ObjectRef;

/// How often a write is repeated when the object at that name is another one than was read.
const SWAPS_MAX: usize = 4;

impl Cluster {
    /// Whose the object at a name is.
    pub async fn standing<K: Namespaced>(
        &self,
        owner: &Owner,
        at: &ObjectRef,
    ) -> Result<Standing, ClusterError> {
        let api = self.api::<K>(&at.namespace);
        let found = bounded::<K, _>("get", at, api.get_metadata_opt(&at.name)).await?;
        Ok(
            found.map_or(Standing::Absent, |found: PartialObjectMeta<K>| {
                owner.standing(&K::kind(&()), &found)
            }),
        )
    }

    /// Brings an object of the owner's to what `object` says: creates it where there is none, and
    /// states the fields that we own where there is one of the owner's. `known` is the UID of the
    /// owner's object, if that is known; without it one that is there is looked at first.
    ///
    /// # Errors
    /// [`ClusterError::Foreign`] for an object that is not the owner's; it is not touched.
    pub async fn apply_owned<K: Namespaced>(
        &self,
        owner: &Owner,
        object: &K,
        known: Option<&str>,
    ) -> Result<K, ClusterError> {
        let at = reference(object);
        let mut found = known.map(|uid| (uid.to_owned(), true));
        let mut last = None;
        for _ in 0..SWAPS_MAX {
            let written = match &found {
                None => self.create_to_apply(object).await,
                Some((uid, directly)) => self.apply_over(object, uid, *directly).await,
            };
            match written {
                Err(error) if error.is_already_exists() || is_swapped(&error, found.is_some()) => {
                    last = Some(error);
                }
                written => return written,
            }
            found = match self.standing::<K>(owner, &at).await? {
                Standing::Absent => None,
                Standing::Ours { uid, directly, .. } => Some((uid, directly)),
                Standing::Foreign(foreign) => return Err(ClusterError::Foreign(foreign)),
            };
        }
        Err(last.unwrap_or_else(|| ClusterError::Swapped {
            kind: K::kind(&()).into_owned(),
            at,
        }))
    }

    /// The same for an object that is there, most likely.
    pub async fn read_and_apply<K: Namespaced>(
        &self,
        owner: &Owner,
        object: &K,
    ) -> Result<K, ClusterError> {
        match self.standing::<K>(owner, &reference(object)).await? {
            Standing::Foreign(foreign) => Err(ClusterError::Foreign(foreign)),
            Standing::Ours {
                uid,
                directly: true,
                ..
            } => self.apply_owned(owner, object, Some(&uid)).await,
            Standing::Ours { .. } | Standing::Absent => self.apply_owned(owner, object, None).await,
        }
    }

    /// Deletes the object at a name if it is the owner's; says whether there was such an object. An
    /// object that takes its place meanwhile stays.
    pub async fn delete_owned<K: Namespaced>(
        &self,
        owner: &Owner,
        at: &ObjectRef,
    ) -> Result<bool, ClusterError> {
        for _ in 0..SWAPS_MAX {
            let (uid, version) = match self.standing::<K>(owner, at).await? {
                Standing::Ours { uid, version, .. } => (uid, version),
                Standing::Absent | Standing::Foreign(_) => return Ok(false),
            };
            match self.delete_at::<K>(at, &uid, version).await {
                Err(error) if error.is_conflict() => {}
                deleted => return deleted.map(|()| true),
            }
        }
        Err(ClusterError::Swapped {
            kind: K::kind(&()).into_owned(),
            at: at.clone(),
        })
    }

    /// Deletes the very object that was read; that it is gone already is success.
    pub async fn delete_read<K: Namespaced>(&self, object: &K) -> Result<(), ClusterError> {
        let uid = object.uid().unwrap_or_default();
        self.delete_uid::<K>(&reference(object), &uid).await
    }

    /// Deletes the object with that UID; that it is gone already, or that another one has its name, is
    /// success.
    pub async fn delete_uid<K: Namespaced>(
        &self,
        at: &ObjectRef,
        uid: &str,
    ) -> Result<(), ClusterError> {
        match self.delete_at::<K>(at, uid, None).await {
            Err(error) if error.is_conflict() => Ok(()),
            deleted => deleted,
        }
    }

    async fn delete_at<K: Namespaced>(
        &self,
        at: &ObjectRef,
        uid: &str,
        version: Option<String>,
    ) -> Result<(), ClusterError> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: version,
            }),
            ..DeleteParams::background()
        };
        let api = self.api::<K>(&at.namespace);
        let call = api.delete(&at.name, &params);
        match self.write::<K, _>("delete", at, call).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// States the fields that we own in the object with that UID (server-side apply, forced).
    async fn apply_over<K: Namespaced>(
        &self,
        object: &K,
        uid: &str,
        directly: bool,
    ) -> Result<K, ClusterError> {
        let at = reference(object);
        let mut object = object.clone();
        object.meta_mut().uid = Some(uid.to_owned());
        if !directly {
            // It has a controller, and there can be one only.
            object.meta_mut().owner_references = None;
        }
        let api = self.api::<K>(&at.namespace);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(&object);
        let call = api.patch(&at.name, &params, &patch);
        self.write::<K, _>("apply", &at, call).await
    }

    /// Creates an object whose fields are then owned as if they had been applied, so that a field that
    /// is no longer stated goes.
    async fn create_to_apply<K: Namespaced>(&self, object: &K) -> Result<K, ClusterError> {
        let mut made = self.create(object).await?;
        let at = reference(object);
        let wanted = serde_json::to_value(object).unwrap_or_default();
        for _ in 0..SWAPS_MAX {
            let Some(entries) = applied(made.meta(), &wanted) else {
                return Ok(made);
            };
            let patch = json!({ "metadata": {
                "uid": made.uid(), "resourceVersion": made.resource_version(),
                "managedFields": entries,
            } });
            match self.patch::<K>(&at, &patch).await {
                // A controller has written the status of what is new.
                Err(error) if error.is_conflict() => {
                    let now = self.get::<K>(&at).await?;
                    let Some(now) = now.filter(|now| now.uid() == made.uid()) else {
                        return Ok(made);
                    };
                    made = now;
                }
                patched => return patched,
            }
        }
        Ok(made)
    }
}

/// Whether a write found another object than the one that it was for.
fn is_swapped(error: &ClusterError, by_uid: bool) -> bool {
    // Kubernetes calls an apply with another UID invalid, and one to nothing a conflict.
    let is_another = error.code() == Some(422)
        && error
            .server_message()
            .is_some_and(|message| message.contains("metadata.uid"));
    error.is_conflict() || by_uid && (error.is_not_found() || is_another)
}

/// `managedFields` in which what we have created is applied by us; `None` if they need no change.
fn applied(meta: &ObjectMeta, wanted: &Value) -> Option<Vec<ManagedFieldsEntry>> {
    let mut entries = meta.managed_fields.clone()?;
    let ours = entries.iter_mut().find(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.operation.as_deref() == Some("Update")
            && entry.subresource.as_deref().unwrap_or_default().is_empty()
    })?;
    ours.operation = Some("Apply".to_owned());
    let fields = ours.fields_v1.take().map(|fields| fields.0);
    let stated = stated(&fields.unwrap_or_default(), wanted, false);
    ours.fields_v1 = Some(FieldsV1(Value::Object(stated)));
    Some(entries)
}

/// Of the fields of a new object those that were stated: what the server has filled in is not ours.
/// An apply owns an item as such (`.`), and of anything else with contents only these.
fn stated(fields: &Value, wanted: &Value, is_item: bool) -> Map<String, Value> {
    let of_item = |key: &str| {
        let key: Map<String, Value> = serde_json::from_str(key).ok()?;
        wanted.as_array()?.iter().find(|item| {
            let differs = |(name, value): (&String, &Value)| {
                item.get(name).is_some_and(|given| given != value)
            };
            !key.iter().any(differs)
        })
    };
    let mut kept = Map::new();
    for (key, inner) in fields.as_object().into_iter().flatten() {
        let value = match key.split_once(':') {
            Some(("f", name)) => wanted.get(name).filter(|value| !value.is_null()),
            Some(("k", item)) => of_item(item),
            _ => Some(&Value::Null),
        };
        if let Some(value) = value {
            let inner = stated(inner, value, key.starts_with("k:"));
            kept.insert(key.clone(), Value::Object(inner));
        }
    }
    if !is_item && kept.len() > 1 {
        kept.remove(".");
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_new_object_only_what_was_stated_is_kept_as_applied() {
        let wanted = json!({
            "metadata": {"labels": {"team": "till"}},
            "spec": {"ports": [{"port": 5432, "name": "primary"}], "type": "ClusterIP"},
        });
        let recorded = json!({
            "f:metadata": {"f:labels": {".": {}, "f:team": {}}},
            "f:spec": {
                "f:clusterIP": {}, "f:type": {},
                "f:ports": {
                    ".": {},
                    "k:{\"port\":5432,\"protocol\":\"TCP\"}": {
                        ".": {}, "f:name": {}, "f:port": {}, "f:protocol": {},
                    },
                },
            },
        });
        let meta = ObjectMeta {
            managed_fields: Some(vec![ManagedFieldsEntry {
                manager: Some(FIELD_MANAGER.into()),
                operation: Some("Update".into()),
                fields_v1: Some(FieldsV1(recorded)),
                ..ManagedFieldsEntry::default()
            }]),
            ..ObjectMeta::default()
        };
        let entries = applied(&meta, &wanted).unwrap();
        assert_eq!(entries[0].operation.as_deref(), Some("Apply"));
        assert_eq!(
            entries[0].fields_v1.as_ref().unwrap().0,
            json!({
                "f:metadata": {"f:labels": {"f:team": {}}},
                "f:spec": {
                    "f:type": {},
                    "f:ports": {
                        "k:{\"port\":5432,\"protocol\":\"TCP\"}": {
                            ".": {}, "f:name": {}, "f:port": {},
                        },
                    },
                },
            })
        );
        let meta = ObjectMeta {
            managed_fields: Some(entries),
            ..meta
        };
        assert_eq!(applied(&meta, &wanted), None);
    }
}
