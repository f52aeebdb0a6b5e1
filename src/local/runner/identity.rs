//! As whom a pod's process runs.
//!
//! A daemon that is root runs the process as the ids of the security context, of the container
//! before those of the pod; without any (or with root, which `PgBouncer` refuses) as the system
//! user `postgres`, else `nobody`. Any other daemon can only run it as itself.

use k8s_openapi::api::core::v1::PodSpec;
use nix::unistd::{Uid, User};

/// User and group of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Group of the volume files (`fsGroup`), or else `gid`.
    pub fs_group: u32,
}

/// The identity for `container` of `spec`; `None` means the daemon's own.
pub fn identity(spec: &PodSpec, container: &str) -> Option<Identity> {
    if !Uid::effective().is_root() {
        return None;
    }
    Some(choose(spec, container, unprivileged()))
}

fn choose(spec: &PodSpec, container: &str, fallback: (u32, u32)) -> Identity {
    let pod = spec.security_context.as_ref();
    let own = spec
        .containers
        .iter()
        .find(|c| c.name == container)
        .and_then(|c| c.security_context.as_ref());
    let id = |value: Option<i64>| value.and_then(|v| u32::try_from(v).ok());
    let user = id(own.and_then(|c| c.run_as_user))
        .or_else(|| id(pod.and_then(|p| p.run_as_user)))
        .filter(|uid| *uid != 0);
    let group =
        id(own.and_then(|c| c.run_as_group)).or_else(|| id(pod.and_then(|p| p.run_as_group)));
    let uid = user.unwrap_or(fallback.0);
    let gid = group.unwrap_or_else(|| user.unwrap_or(fallback.1));
    let fs_group = id(pod.and_then(|p| p.fs_group)).unwrap_or(gid);
    Identity { uid, gid, fs_group }
}

/// The system user that may run a pooler.
pub fn unprivileged() -> (u32, u32) {
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| User::from_name(name).ok().flatten())
        .map_or((65_534, 65_534), |u| (u.uid.as_raw(), u.gid.as_raw()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(pod: &serde_json::Value, container: &serde_json::Value) -> PodSpec {
        serde_json::from_value(json!({
            "securityContext": pod,
            "containers": [{"name": "pgbouncer", "securityContext": container}]
        }))
        .unwrap()
    }

    #[test]
    fn the_container_overrules_the_pod_and_the_group_follows_the_user() {
        let given = spec(
            &json!({"runAsUser": 71, "fsGroup": 72}),
            &json!({"runAsUser": 70}),
        );
        let expected = Identity {
            uid: 70,
            gid: 70,
            fs_group: 72,
        };
        assert_eq!(choose(&given, "pgbouncer", (9, 8)), expected);
    }

    #[test]
    fn root_and_nobody_at_all_become_the_unprivileged_user() {
        let expected = Identity {
            uid: 9,
            gid: 8,
            fs_group: 8,
        };
        let root = spec(&json!({"runAsUser": 0}), &json!(null));
        assert_eq!(choose(&root, "pgbouncer", (9, 8)), expected);
        assert_eq!(
            choose(&spec(&json!(null), &json!(null)), "pgbouncer", (9, 8)),
            expected
        );
    }
}
