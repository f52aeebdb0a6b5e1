//! Errors of the Kubernetes client, without what they repeat of an answer's body: it may be a Secret.

use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher;
use kube::{Error, Resource};
use serde::de::Error as _;

use crate::opaque::{self, JsonTrouble};

/// kube's reason of an answer that is no `Status`; its message is the whole body.
const NO_STATUS: &str = "Failed to parse error data";

/// The same error, without the text of a body that could not be read. What an API server, or an admission
/// webhook, says of a Secret is kept without what looks like a piece of a key.
pub(super) fn without_bodies<K: Resource<DynamicType = ()>>(error: Error) -> Error {
    match error {
        Error::SerdeError(error) => {
            let trouble = JsonTrouble::from(error);
            Error::SerdeError(serde_json::Error::custom(trouble))
        }
        Error::FromUtf8(_) => Error::SerdeError(serde_json::Error::custom("it is not text")),
        Error::Api(mut status) => {
            if status.reason == NO_STATUS {
                let length = status.message.len();
                status.message = format!("the answer is {length} bytes that are no Status");
            } else if K::kind(&()) == Secret::kind(&()) {
                status.message = opaque::words(&status.message);
                status.details = None;
            }
            Error::Api(status)
        }
        other => other,
    }
}

/// The same for an error of a watch.
pub fn watch_without_bodies<K: Resource<DynamicType = ()>>(
    error: watcher::Error,
) -> watcher::Error {
    let same = without_bodies::<K>;
    match error {
        watcher::Error::InitialListFailed(error) => watcher::Error::InitialListFailed(same(error)),
        watcher::Error::WatchStartFailed(error) => watcher::Error::WatchStartFailed(same(error)),
        watcher::Error::WatchFailed(error) => watcher::Error::WatchFailed(same(error)),
        error @ (watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion) => error,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::core::Status;

    use super::*;

    const KEY: &str = "MHcCAQEEIKx7Zq1Yt0gSzWq1Xn8Kf3Lp9Zr7TbVd2Qe5Uj4MwNoAoGCCqGSM49";

    fn told<K: Resource<DynamicType = ()>>(error: Error) -> String {
        let error = without_bodies::<K>(error);
        format!("{error} {error:?}")
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_not_repeated() {
        let json = format!(r#"{{"metadata": {{"labels": "{KEY}"}}}}"#);
        let unreadable = serde_json::from_str::<Secret>(&json).unwrap_err();
        assert!(unreadable.to_string().contains(KEY));
        let told_of = told::<Secret>(Error::SerdeError(unreadable));
        assert!(!told_of.contains(&KEY[..16]), "{told_of}");
        let page = format!("<html>{KEY}</html>");
        let page = Status::failure(&page, NO_STATUS).with_code(502);
        let told_of = told::<Pod>(Error::Api(page.boxed()));
        assert!(!told_of.contains(&KEY[..16]), "{told_of}");
        assert!(
            told_of.contains("75 bytes") && told_of.contains("502"),
            "{told_of}"
        );
        let bytes = [KEY.as_bytes(), &[0xff]].concat();
        let told_of = told::<Pod>(Error::FromUtf8(String::from_utf8(bytes).unwrap_err()));
        assert!(
            told_of.contains("not text") && !told_of.contains("77, 72"),
            "{told_of}"
        );
    }

    #[test]
    fn what_is_said_of_a_secret_keeps_its_name_and_loses_its_content() {
        let said =
            format!("admission webhook \"guard.example\" denied secrets \"ledger-r2\": bad {KEY}");
        let status = Status::failure(&said, "Forbidden").with_code(403);
        let told_of = told::<Secret>(Error::Api(status.boxed()));
        assert!(
            told_of.contains("denied secrets \"ledger-r2\": bad <left out>"),
            "{told_of}"
        );
    }
}
