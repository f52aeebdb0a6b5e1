//! Parts that several kinds share: phases, conditions, references.

use std::fmt::Display;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::instants::in_utc;
use crate::printable::printable;

/// Phase of a `PgBouncer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Objects are being made; never been ready.
    Provisioning,
    /// Unused for a pooler; kept for the schema.
    DataRestoring,
    /// Serving.
    Ready,
    /// Serving with fewer replicas than asked for.
    Critical,
    /// Not serving.
    NotReady,
    /// Stopped on request.
    Halted,
    /// Health checks are paused.
    Unknown,
}

/// A condition as KubeDB's kinds carry it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What the condition is about.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// When status, reason, message or generation last changed.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// One word for programs.
    #[serde(default)]
    pub reason: String,
    /// A sentence for people.
    #[serde(default)]
    pub message: String,
    /// Severity; empty for ordinary conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// Generation of the object that the condition describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// Longest message of a condition, in bytes. Kubernetes' convention allows 32,768; an object has a dozen
/// conditions, and each write of a status sends them all.
pub const CONDITION_MESSAGE_MAX: usize = 4_096;

impl Condition {
    /// A condition with status `True` or `False`, changed at `at`.
    pub fn new(
        type_: &str,
        status: ConditionStatus,
        reason: &str,
        message: impl Into<String>,
        at: OffsetDateTime,
    ) -> Self {
        Self {
            type_: type_.to_owned(),
            status: status.as_str().to_owned(),
            last_transition_time: rfc3339_seconds(at),
            reason: reason.to_owned(),
            message: printable(&message.into(), CONDITION_MESSAGE_MAX),
            severity: None,
            observed_generation: None,
        }
    }

    /// Whether the condition is `True`.
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }
}

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
}

impl ConditionStatus {
    /// As written in the object.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// Puts `new` into `conditions`: in place where its type is there already, else at the end; the
/// transition time moves only when something else changed. Says whether anything
/// changed.
pub fn set_condition(conditions: &mut Vec<Condition>, new: Condition) -> bool {
    let Some(old) = conditions.iter_mut().find(|old| old.type_ == new.type_) else {
        conditions.push(new);
        return true;
    };
    let unchanged = Condition {
        last_transition_time: old.last_transition_time.clone(),
        ..new.clone()
    };
    if *old == unchanged {
        return false;
    }
    *old = new;
    true
}

/// The condition of that type, if it is there.
pub fn find_condition<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// An instant as Kubernetes writes it: RFC 3339, UTC, whole seconds.
pub fn rfc3339_seconds(at: OffsetDateTime) -> String {
    let whole = in_utc(at).replace_nanosecond(0).unwrap_or(at);
    // Formatting fails only for years beyond 9999, where the Debug form is as good as any.
    whole
        .format(&Rfc3339)
        .unwrap_or_else(|_| format!("{whole:?}"))
}

/// Reads an RFC 3339 instant, in UTC.
pub fn parse_rfc3339(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(in_utc)
}

/// The condition that says that a fault of the daemon's own ended a look at the object.
pub const INTERNAL_ERROR: &str = "InternalError";

/// What such a condition says about the controller whose look that was.
pub fn internal_error(controller: &str, panicked: &impl Display) -> String {
    format!(
        "a fault of the daemon's own ended the work of controller {controller} on this object \
         ({panicked}); it is tried again at growing intervals, and at once when the object is \
         changed. Other objects are served. Please report this text"
    )
}

/// Whether these say that a look of that controller panicked.
pub fn has_internal_error(conditions: &[Condition], controller: &str) -> bool {
    let of = format!(" controller {controller} ");
    find_condition(conditions, INTERNAL_ERROR).is_some_and(|told| told.message.contains(&of))
}

/// The instant that the API server has written; `None` beyond the years that dates have.
pub fn instant(time: &Time) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(time.0.as_nanosecond()).ok()
}

/// A reference to an object in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct LocalRef {
    /// Name of the object.
    #[serde(default)]
    pub name: String,
}

/// A typed reference to an object in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct TypedRef {
    /// API group; empty for the core group.
    #[serde(default)]
    pub api_group: String,
    /// Kind; `Secret` unless said otherwise.
    #[serde(default = "secret_kind")]
    pub kind: String,
    /// Name.
    pub name: String,
}

/// Default kind of a typed reference.
pub(super) fn secret_kind() -> String {
    "Secret".to_owned()
}

/// The schema of a subtree that is carried through unchanged.
pub(super) fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true
    })
}

/// The schema of a list of such subtrees.
pub(super) fn any_objects(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn a_condition_keeps_its_time_until_it_changes() {
        let at = |minute| datetime!(2031-05-06 07:00 UTC) + time::Duration::minutes(minute);
        let ready = |minute, message: &str| {
            Condition::new(
                "Ready",
                ConditionStatus::True,
                "Looked",
                message,
                at(minute),
            )
        };
        let mut conditions = vec![];
        assert!(set_condition(&mut conditions, ready(0, "fine")));
        assert!(!set_condition(&mut conditions, ready(1, "fine")));
        assert_eq!(conditions[0].last_transition_time, "2031-05-06T07:00:00Z");
        assert!(set_condition(&mut conditions, ready(2, "better")));
        assert_eq!(conditions[0].last_transition_time, "2031-05-06T07:02:00Z");
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn a_controller_knows_the_internal_error_that_it_has_written() {
        let now = datetime!(2031-05-06 07:00 UTC);
        let message = internal_error("rotation", &"panic at src/x.rs:7");
        let told = Condition::new(
            INTERNAL_ERROR,
            ConditionStatus::True,
            INTERNAL_ERROR,
            message,
            now,
        );
        let all = [told];
        assert!(has_internal_error(&all, "rotation"));
        assert!(!has_internal_error(&all, "pgbouncers") && !has_internal_error(&[], "rotation"));
    }
}
