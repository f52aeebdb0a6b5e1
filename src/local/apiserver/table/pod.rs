//! The row of a pod: what its containers are doing, in one word.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::age;
use super::builtin::{age_of, list, name, or_none, text};
use crate::local::apiserver::meta;

pub(super) const COLUMNS: &[(&str, &str, i64)] = &[
    ("Name", "string", 0),
    ("Ready", "string", 0),
    ("Status", "string", 0),
    ("Restarts", "string", 0),
    ("Age", "string", 0),
    ("IP", "string", 1),
    ("Node", "string", 1),
    ("Nominated Node", "string", 1),
    ("Readiness Gates", "string", 1),
];

pub(super) fn cells(pod: &Value, now: OffsetDateTime) -> Vec<Value> {
    let containers = list(pod, "/status/containerStatuses");
    let ready = containers
        .iter()
        .filter(|c| c["ready"] == true && !c["state"]["running"].is_null());
    vec![
        name(pod),
        json!(format!(
            "{}/{}",
            ready.count(),
            list(pod, "/spec/containers").len()
        )),
        json!(status(pod, containers)),
        json!(restarts(containers, now)),
        age_of(pod, now),
        or_none(text(pod, "/status/podIP")),
        or_none(text(pod, "/spec/nodeName")),
        or_none(text(pod, "/status/nominatedNodeName")),
        json!("<none>"),
    ]
}

/// The phase, unless the pod, one of its containers or its deletion has a better word.
fn status(pod: &Value, containers: &[Value]) -> String {
    let gone = !pod["metadata"]["deletionTimestamp"].is_null();
    if gone {
        return "Terminating".to_owned();
    }
    let phase = text(pod, "/status/phase").unwrap_or("Unknown");
    let mut word = text(pod, "/status/reason").unwrap_or(phase).to_owned();
    if let Some(init) = list(pod, "/status/initContainerStatuses")
        .iter()
        .find_map(init_trouble)
    {
        return init;
    }
    let mut one_runs = false;
    for container in containers.iter().rev() {
        let state = &container["state"];
        let terminated = &state["terminated"];
        if let Some(reason) = state["waiting"]["reason"]
            .as_str()
            .filter(|r| !r.is_empty())
        {
            reason.clone_into(&mut word);
        } else if let Some(reason) = terminated["reason"].as_str().filter(|r| !r.is_empty()) {
            reason.clone_into(&mut word);
        } else if !terminated.is_null() {
            word = match terminated["signal"].as_i64().unwrap_or_default() {
                0 => format!(
                    "ExitCode:{}",
                    terminated["exitCode"].as_i64().unwrap_or_default()
                ),
                signal => format!("Signal:{signal}"),
            };
        } else if container["ready"] == true && !state["running"].is_null() {
            one_runs = true;
        }
    }
    if word == "Completed" && one_runs {
        return if meta::is_ready(pod) {
            "Running".to_owned()
        } else {
            "NotReady".to_owned()
        };
    }
    word
}

fn init_trouble(container: &Value) -> Option<String> {
    let reason = |state: &str| container["state"][state]["reason"].as_str();
    match (
        reason("waiting"),
        container["state"]["terminated"]["exitCode"].as_i64(),
    ) {
        (Some(reason), _) if reason != "PodInitializing" => Some(format!("Init:{reason}")),
        (_, Some(code)) if code != 0 => Some(reason("terminated").map_or_else(
            || format!("Init:ExitCode:{code}"),
            |reason| format!("Init:{reason}"),
        )),
        _ => None,
    }
}

/// `0`, or `2 (5m ago)`.
fn restarts(containers: &[Value], now: OffsetDateTime) -> String {
    let total: i64 = containers
        .iter()
        .filter_map(|c| c["restartCount"].as_i64())
        .sum();
    let last = containers
        .iter()
        .filter_map(|c| c.pointer("/lastState/terminated/finishedAt")?.as_str())
        .max();
    match last {
        Some(last) if total > 0 => format!("{total} ({} ago)", age::since(Some(last), now)),
        _ => total.to_string(),
    }
}
