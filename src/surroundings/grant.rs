//! Grants: the word of a namespace that others may refer to its AppBindings.
//!
//! A reference within a namespace needs none. A reference into another namespace copies passwords
//! from there, so it needs [`ALLOWED_NAMESPACES`] on the AppBinding, or on its Namespace for all
//! AppBindings in it. An annotation that cannot be read allows nothing.

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;

use super::SurroundingsError;
use crate::api::annotations::ALLOWED_NAMESPACES;
use crate::api::{AppBinding, PgBouncer};
use crate::cluster::{Cluster, reference};
use crate::names::{ObjectRef, is_label};

/// Allows all namespaces.
const ANY: &str = "*";

/// Which references into another namespace are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum References {
    /// Those that the other namespace allows.
    #[default]
    Granted,
    /// All (`--allow-cross-namespace-databases`).
    Open,
}

/// The object whose annotation cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grantor {
    /// The AppBinding itself.
    Application,
    /// The Namespace that it is in.
    Namespace,
}

/// Proves that `bouncer` may refer to its AppBinding.
///
/// An AppBinding that does not exist is not told apart from one that is not granted, so that a
/// reference does not show what another namespace holds.
pub async fn check_references(
    cluster: &Cluster,
    bouncer: &PgBouncer,
    references: References,
) -> Result<(), SurroundingsError> {
    let (own, app) = (reference(bouncer), &bouncer.spec.database.database_ref);
    if references == References::Open || app.namespace == own.namespace {
        return Ok(());
    }
    let at = ObjectRef::new(&app.namespace, &app.name);
    let unreadable = |grantor| SurroundingsError::GrantUnreadable {
        bouncer: own.clone(),
        app: at.clone(),
        grantor,
    };
    let found: Option<AppBinding> = cluster.get(&at).await?;
    match found.map(|found| is_allowed(found.annotations().get(ALLOWED_NAMESPACES), &own)) {
        Some(Ok(true)) => return Ok(()),
        Some(Err(Unreadable)) => return Err(unreadable(Grantor::Application)),
        Some(Ok(false)) | None => {}
    }
    let namespace = match cluster.get_global::<Namespace>(&app.namespace).await {
        Ok(namespace) => namespace,
        // A daemon that may not read Namespaces works without their annotations.
        Err(error) if error.code() == Some(403) => None,
        Err(error) => return Err(error.into()),
    };
    match namespace.map(|found| is_allowed(found.annotations().get(ALLOWED_NAMESPACES), &own)) {
        Some(Ok(true)) => Ok(()),
        Some(Err(Unreadable)) => Err(unreadable(Grantor::Namespace)),
        Some(Ok(false)) | None => Err(SurroundingsError::NotGranted {
            bouncer: own,
            app: at,
        }),
    }
}

// === impl Grantor ===

impl Grantor {
    /// Kind and name of the object, for an error about `app`.
    pub(super) fn of(self, app: &ObjectRef) -> String {
        match self {
            Self::Application => format!("AppBinding {app}"),
            Self::Namespace => format!("Namespace {}", app.namespace),
        }
    }
}

/// An annotation that is not a list of namespaces.
#[derive(Debug, PartialEq, Eq)]
struct Unreadable;

/// Whether an annotation, if there is one, allows the namespace of `own`.
fn is_allowed(annotation: Option<&String>, own: &ObjectRef) -> Result<bool, Unreadable> {
    let Some(text) = annotation.map(|text| text.trim()) else {
        return Ok(false);
    };
    if text == ANY {
        return Ok(true);
    }
    let names: Vec<&str> = text.split(',').map(str::trim).collect();
    if !names.iter().all(|name| is_label(name)) {
        return Err(Unreadable);
    }
    Ok(names.contains(&own.namespace.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<bool, Unreadable> {
        let own = ObjectRef::new("team-a", "till");
        is_allowed(Some(&text.to_owned()), &own)
    }

    #[test]
    fn a_namespace_is_allowed_by_its_exact_name_or_by_a_star() {
        for text in [
            "team-a",
            " team-a ",
            "team-c, team-a",
            "team-c,team-a,x",
            "*",
            " * ",
        ] {
            assert_eq!(read(text), Ok(true), "{text:?}");
        }
        for text in ["team-c", "team-ab", "eam-a", "team-b,team-aa", "a"] {
            assert_eq!(read(text), Ok(false), "{text:?}");
        }
        assert_eq!(
            is_allowed(None, &ObjectRef::new("team-a", "till")),
            Ok(false)
        );
    }

    #[test]
    fn what_is_not_a_list_of_namespaces_is_unreadable_and_not_a_part_of_one() {
        let long = "a".repeat(64);
        for text in [
            "",
            " ",
            ",",
            "team-a,",
            ",team-a",
            "team-*",
            "*,team-a",
            "team-a *",
            "team-a;team-c",
            "Team-A",
            "team-a,-x",
            "team_a",
            "team-a/till",
            "[\"team-a\"]",
            "team-a\n",
            "../team-a",
            "team-a,team c",
            long.as_str(),
        ] {
            // A line break at the end is white space like any other.
            let expected = if text == "team-a\n" {
                Ok(true)
            } else {
                Err(Unreadable)
            };
            assert_eq!(read(text), expected, "{text:?}");
        }
    }
}
