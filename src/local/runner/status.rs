//! The status of a pod as `kubectl` shows it: a pure function of what the worker knows.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::process::Exit;
use crate::api::common::rfc3339_seconds;

/// Name of the container that is run.
pub const CONTAINER: &str = "pgbouncer";
/// Why other containers wait.
pub const NOT_RUN_REASON: &str = "NotRunOnLocalPlatform";

/// One run of the process that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How it ended.
    pub exit: Exit,
    /// When it began.
    pub started_at: OffsetDateTime,
    /// When it ended.
    pub ended_at: OffsetDateTime,
}

/// What the container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It does not run: reason and message.
    Waiting(&'static str, String),
    /// It runs.
    Running {
        /// Since when.
        since: OffsetDateTime,
        /// Process id.
        pid: i32,
    },
    /// It ended for good.
    Ended(Ended),
}

/// All that the status tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// State of the container.
    pub state: State,
    /// Its former run.
    pub last: Option<Ended>,
    /// Times it was started again.
    pub restarts: u32,
    /// Whether its readiness probe succeeds.
    pub ready: bool,
    /// The pod's address.
    pub address: Option<Ipv4Addr>,
    /// Version of the program.
    pub version: String,
}

/// The status object of `pod`. Conditions keep the time of their last change from `before`, the
/// status that the API holds, and those of other writers stay.
pub fn status(pod: &Pod, shown: &Shown, before: &Value, now: OffsetDateTime) -> Value {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let container_statuses: Vec<Value> = containers
        .map(|container| {
            if container.name == CONTAINER {
                pooler(container, shown)
            } else {
                not_run(container)
            }
        })
        .collect();
    let started_at = before["startTime"]
        .as_str()
        .map_or_else(|| rfc3339_seconds(now), str::to_owned);
    let mut status = json!({
        "phase": phase(shown),
        "conditions": conditions(shown, before, now),
        "hostIP": "127.0.0.1",
        "hostIPs": [{"ip": "127.0.0.1"}],
        "startTime": started_at,
        "qosClass": "BestEffort",
        "containerStatuses": container_statuses,
    });
    if let Some(address) = shown.address {
        status["podIP"] = json!(address);
        status["podIPs"] = json!([{"ip": address}]);
    }
    if let Some(generation) = pod.metadata.generation {
        status["observedGeneration"] = json!(generation);
    }
    status
}

fn phase(shown: &Shown) -> &'static str {
    match &shown.state {
        State::Waiting(..) if shown.last.is_none() => "Pending",
        State::Waiting(..) | State::Running { .. } => "Running",
        State::Ended(ended) if ended.exit.code == Some(0) => "Succeeded",
        State::Ended(_) => "Failed",
    }
}

fn conditions(shown: &Shown, before: &Value, now: OffsetDateTime) -> Vec<Value> {
    let ready = if shown.ready {
        ("True", None)
    } else {
        (
            "False",
            Some((
                "ContainersNotReady",
                format!("containers with unready status: [{CONTAINER}]"),
            )),
        )
    };
    let started = if shown.address.is_some() {
        "True"
    } else {
        "False"
    };
    let mut wanted = vec![
        ("PodReadyToStartContainers", started, None),
        ("Initialized", "True", None),
        ("Ready", ready.0, ready.1.clone()),
        ("ContainersReady", ready.0, ready.1),
        ("PodScheduled", "True", None),
    ];
    let none = Vec::new();
    let known = before["conditions"].as_array().unwrap_or(&none);
    let mut out: Vec<Value> = known
        .iter()
        .filter(|c| !wanted.iter().any(|(name, ..)| c["type"] == *name))
        .cloned()
        .collect();
    for (name, value, why) in wanted.drain(..) {
        let former = known
            .iter()
            .find(|c| c["type"] == name && c["status"] == value);
        let since = former
            .and_then(|c| c["lastTransitionTime"].as_str())
            .map_or_else(|| rfc3339_seconds(now), str::to_owned);
        let mut condition = json!({"type": name, "status": value, "lastTransitionTime": since});
        if let Some((reason, message)) = why {
            condition["reason"] = json!(reason);
            condition["message"] = json!(message);
        }
        out.push(condition);
    }
    out
}

fn pooler(container: &Container, shown: &Shown) -> Value {
    let mut out = json!({
        "name": container.name,
        "image": container.image.clone().unwrap_or_default(),
        "imageID": format!("local://pgbouncer/{}", shown.version),
        "ready": shown.ready,
        "started": matches!(shown.state, State::Running { .. }),
        "restartCount": shown.restarts,
        "state": match &shown.state {
            State::Waiting(reason, message) if message.is_empty() => {
                json!({"waiting": {"reason": reason}})
            }
            State::Waiting(reason, message) => {
                json!({"waiting": {"reason": reason, "message": message}})
            }
            State::Running { since, .. } => {
                json!({"running": {"startedAt": rfc3339_seconds(*since)}})
            }
            State::Ended(ended) => json!({"terminated": terminated(ended)}),
        },
        "lastState": {},
    });
    if let State::Running { pid, .. } = shown.state {
        out["containerID"] = json!(format!("local://{pid}"));
    }
    if let Some(last) = &shown.last {
        out["lastState"] = json!({"terminated": terminated(last)});
    }
    out
}

fn terminated(ended: &Ended) -> Value {
    let reason = if ended.exit.code == Some(0) {
        "Completed"
    } else {
        "Error"
    };
    let mut out = json!({
        "exitCode": ended.exit.code.unwrap_or(255),
        "reason": reason,
        "startedAt": rfc3339_seconds(ended.started_at),
        "finishedAt": rfc3339_seconds(ended.ended_at),
    });
    if let Some(signal) = ended.exit.signal {
        out["signal"] = json!(signal);
    }
    if ended.exit.code.is_none() {
        out["reason"] = json!("ContainerStatusUnknown");
        out["message"] = json!("the process ended while it was not a child of this daemon");
    }
    out
}

/// A container that is no pooler: said openly, and without effect on readiness.
fn not_run(container: &Container) -> Value {
    json!({
        "name": container.name,
        "image": container.image.clone().unwrap_or_default(),
        "imageID": "",
        "ready": false,
        "started": false,
        "restartCount": 0,
        "state": {"waiting": {
            "reason": NOT_RUN_REASON,
            "message": format!("the local platform runs only the container {CONTAINER}; this one does not count for readiness"),
        }},
        "lastState": {},
    })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2031-05-04 12:00 UTC);

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "till-0"},
            "spec": {"containers": [{"name": "pgbouncer", "image": "a"}, {"name": "exporter"}]}
        }))
        .unwrap()
    }

    fn running(ready: bool) -> Shown {
        Shown {
            state: State::Running {
                since: NOON,
                pid: 4711,
            },
            last: None,
            restarts: 2,
            ready,
            address: Some(Ipv4Addr::new(127, 70, 1, 2)),
            version: "1.18.0".into(),
        }
    }

    fn condition<'a>(status: &'a Value, name: &str) -> &'a Value {
        let all = status["conditions"].as_array().unwrap();
        all.iter().find(|c| c["type"] == name).unwrap()
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let first = status(&pod(), &running(false), &Value::Null, NOON);
        let later = NOON + time::Duration::minutes(5);
        let second = status(&pod(), &running(true), &first, later);
        assert_eq!(condition(&first, "Ready")["status"], "False");
        assert_eq!(condition(&second, "Ready")["status"], "True");
        assert_eq!(
            condition(&second, "Ready")["lastTransitionTime"],
            rfc3339_seconds(later)
        );
        assert_eq!(
            condition(&second, "PodScheduled")["lastTransitionTime"],
            rfc3339_seconds(NOON)
        );
        assert_eq!(second["podIP"], "127.70.1.2");
    }

    #[test]
    fn conditions_of_other_writers_stay() {
        let before = json!({"conditions": [{"type": "bouncert.dev/InService", "status": "True"}]});
        let after = status(&pod(), &running(true), &before, NOON);
        assert_eq!(
            condition(&after, "bouncert.dev/InService")["status"],
            "True"
        );
    }

    #[test]
    fn a_container_that_is_not_run_says_so_and_the_pod_is_ready_nevertheless() {
        let shown = status(&pod(), &running(true), &Value::Null, NOON);
        let exporter = &shown["containerStatuses"][1];
        assert_eq!(exporter["state"]["waiting"]["reason"], NOT_RUN_REASON);
        assert_eq!(condition(&shown, "Ready")["status"], "True");
        let typed: k8s_openapi::api::core::v1::PodStatus = serde_json::from_value(shown).unwrap();
        assert_eq!(typed.phase.as_deref(), Some("Running"));
    }

    #[test]
    fn an_end_by_signal_is_shown_with_the_code_a_shell_would_show() {
        let mut shown = running(false);
        shown.last = Some(Ended {
            exit: Exit {
                code: Some(137),
                signal: Some(9),
            },
            started_at: NOON,
            ended_at: NOON,
        });
        shown.state = State::Waiting("CrashLoopBackOff", "back-off 2 s".into());
        let status = status(&pod(), &shown, &Value::Null, NOON);
        let container = &status["containerStatuses"][0];
        assert_eq!(container["lastState"]["terminated"]["exitCode"], 137);
        assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
        assert_eq!(status["phase"], "Running");
    }
}
