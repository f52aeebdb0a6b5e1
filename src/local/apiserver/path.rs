//! Paths of the Kubernetes API, taken apart.

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// `/healthz`, `/livez`, `/readyz` and what is below them.
    Health,
    /// `/version`.
    Version,
    /// `/api`.
    CoreVersions,
    /// `/apis`.
    Groups,
    /// `/apis/{group}`.
    Group(String),
    /// `/api/v1`, `/apis/{group}/{version}`.
    Resources {
        /// API group; empty for core.
        group: String,
        /// Version.
        version: String,
    },
    /// `/openapi/v2`.
    OpenApiV2,
    /// `/openapi/v3`.
    OpenApiIndex,
    /// `/openapi/v3/apis/{group}/{version}`.
    OpenApi {
        /// API group; empty for core.
        group: String,
        /// Version.
        version: String,
    },
    /// Objects.
    Objects(Target),
}

/// A collection, an object, or a part of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// API group; empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Namespace, where the path has one.
    pub namespace: Option<String>,
    /// Plural resource.
    pub resource: String,
    /// Object name.
    pub name: Option<String>,
    /// Subresource.
    pub subresource: Option<String>,
    /// The old `/watch/` form of the path.
    pub watch: bool,
}

/// Takes a path apart; `None` where nothing like it is served.
pub fn parse(path: &str) -> Option<Path> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => Some(Path::Health),
        ["version"] => Some(Path::Version),
        ["api"] => Some(Path::CoreVersions),
        ["apis"] => Some(Path::Groups),
        ["apis", group] => Some(Path::Group((*group).to_owned())),
        ["openapi", "v2"] => Some(Path::OpenApiV2),
        ["openapi", "v3"] => Some(Path::OpenApiIndex),
        ["openapi", "v3", "api", version] => Some(Path::OpenApi {
            group: String::new(),
            version: (*version).to_owned(),
        }),
        ["openapi", "v3", "apis", group, version] => Some(Path::OpenApi {
            group: (*group).to_owned(),
            version: (*version).to_owned(),
        }),
        ["api", version, rest @ ..] => objects("", version, rest),
        ["apis", group, version, rest @ ..] => objects(group, version, rest),
        _ => None,
    }
}

fn objects(group: &str, version: &str, rest: &[&str]) -> Option<Path> {
    let (rest, watch) = match rest {
        ["watch", rest @ ..] => (rest, true),
        rest => (rest, false),
    };
    let (namespace, rest) = match rest {
        // Below a namespace there is a resource, except for the namespace's own subresources.
        ["namespaces", _, "status" | "finalize"] => (None, rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
        rest => (None, rest),
    };
    let own = |text: &str| text.to_owned();
    let target = Target {
        group: own(group),
        version: own(version),
        namespace: namespace.map(own),
        watch,
        ..Target::default()
    };
    match rest {
        [] => Some(Path::Resources {
            group: own(group),
            version: own(version),
        }),
        [resource] => Some(Path::Objects(Target {
            resource: own(resource),
            ..target
        })),
        [resource, name] => {
            let name = Some(own(name));
            Some(Path::Objects(Target {
                resource: own(resource),
                name,
                ..target
            }))
        }
        [resource, name, subresource] => Some(Path::Objects(Target {
            resource: own(resource),
            name: Some(own(name)),
            subresource: Some(own(subresource)),
            ..target
        })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Target {
        match parse(path) {
            Some(Path::Objects(target)) => target,
            other => panic!("{path} is {other:?}"),
        }
    }

    #[test]
    fn a_namespaced_object_has_all_its_parts() {
        let found = target("/apis/kubedb.com/v1/namespaces/books/pgbouncers/ledger/status");
        assert_eq!(found.group, "kubedb.com");
        assert_eq!(found.namespace.as_deref(), Some("books"));
        assert_eq!(found.resource, "pgbouncers");
        assert_eq!(found.name.as_deref(), Some("ledger"));
        assert_eq!(found.subresource.as_deref(), Some("status"));
    }

    #[test]
    fn a_namespace_is_an_object_and_a_place() {
        assert_eq!(
            target("/api/v1/namespaces/books").name.as_deref(),
            Some("books")
        );
        assert_eq!(
            target("/api/v1/namespaces/books/pods").namespace.as_deref(),
            Some("books")
        );
        let finalize = target("/api/v1/namespaces/books/finalize");
        assert_eq!(finalize.resource, "namespaces");
        assert_eq!(finalize.subresource.as_deref(), Some("finalize"));
        assert_eq!(finalize.namespace, None);
    }

    #[test]
    fn discovery_paths_are_told_apart() {
        assert_eq!(parse("/apis/"), Some(Path::Groups));
        assert!(
            matches!(parse("/api/v1"), Some(Path::Resources { group, .. }) if group.is_empty())
        );
        assert_eq!(parse("/metrics"), None);
        assert_eq!(parse("/api/v1/a/b/c/d"), None);
    }
}
