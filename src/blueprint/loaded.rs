//! What a pod's pooler has loaded, as far as annotations tell.
//!
//! A pod is started with the digest of its template. One that was reloaded runs with a later one: who
//! has proved that writes it down on the pod, together with the container that was seen. So the mark
//! outlives whoever wrote it, and goes with the pod: one that is made anew has its template's digest
//! again, which is right, because it starts with what is mounted. Before the first reload the mark is
//! [`UNKNOWN`]: from then on until it is proved, the pod may have loaded anything.
//!
//! A container that restarts by itself also loads what is mounted at that time. While nothing changes
//! that is what the mark says. In the middle of a change it may be either side's; going forward that
//! costs one reload too many, and going back [`is_witnessed`] tells that the mark proves nothing.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::names;
use crate::api::annotations::{DIGEST, LOADED};

/// The digest of a pod that is being reloaded: nobody's.
pub const UNKNOWN: &str = "unknown";

/// The digest that a pod was last seen to have loaded, or else the one it was started with.
pub fn digest_of(pod: &Pod) -> Option<&str> {
    let annotations = pod.annotations();
    let seen = annotations
        .get(LOADED)
        .and_then(|mark| mark.split_once('@'));
    match seen {
        Some((digest, _)) => Some(digest),
        None => annotations.get(DIGEST).map(String::as_str),
    }
}

/// Whether the container that runs now is the one that was seen to have loaded [`digest_of`].
pub fn is_witnessed(pod: &Pod) -> bool {
    let seen = pod.annotations().get(LOADED);
    seen.and_then(|mark| mark.split_once('@'))
        .is_some_and(|(_, container)| container_of(pod) == Some(container))
}

/// What to write down of a pod that was seen to have loaded `digest`.
pub fn mark(pod: &Pod, digest: &str) -> String {
    format!("{digest}@{}", container_of(pod).unwrap_or_default())
}

/// The identity of the pooler's container; another after each of its restarts.
pub fn container_of(pod: &Pod) -> Option<&str> {
    let all = pod.status.as_ref()?.container_statuses.as_deref()?;
    let ours = all.iter().find(|status| status.name == names::CONTAINER)?;
    ours.container_id.as_deref()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(annotations: &serde_json::Value, container: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "till-0", "annotations": annotations },
            "status": { "containerStatuses": [{
                "name": "pgbouncer", "containerID": container, "image": "", "imageID": "",
                "ready": true, "restartCount": 0,
            }] },
        }))
        .unwrap()
    }

    #[test]
    fn a_mark_is_stronger_than_the_start_and_holds_for_one_container() {
        let fresh = pod(&json!({ DIGEST: "aa" }), "local://1");
        assert_eq!(
            (digest_of(&fresh), is_witnessed(&fresh)),
            (Some("aa"), false)
        );
        let annotations = json!({ DIGEST: "aa", LOADED: mark(&fresh, "bb") });
        let reloaded = pod(&annotations, "local://1");
        assert_eq!(
            (digest_of(&reloaded), is_witnessed(&reloaded)),
            (Some("bb"), true)
        );
        let restarted = pod(&annotations, "local://2");
        assert_eq!(
            (digest_of(&restarted), is_witnessed(&restarted)),
            (Some("bb"), false)
        );
    }
}
