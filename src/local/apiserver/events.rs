//! The two faces of `Event`: `v1`, which is stored and which `kubectl describe` reads, and
//! `events.k8s.io/v1`, which controllers write. Only the names of the fields differ.

use serde_json::{Map, Value};

/// (older name, newer name); fields not named here are the same in both.
const NAMES: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// The newer face of a stored event.
pub fn to_new(stored: &Value) -> Value {
    renamed(stored, |name| {
        NAMES
            .iter()
            .find(|(old, _)| *old == name)
            .map(|(_, new)| *new)
    })
}

/// The stored form of an event that came in its newer face.
pub fn to_stored(new: &Value) -> Value {
    renamed(new, |name| {
        NAMES
            .iter()
            .find(|(_, new)| *new == name)
            .map(|(old, _)| *old)
    })
}

fn renamed(event: &Value, rename: impl Fn(&str) -> Option<&'static str>) -> Value {
    let fields = event.as_object().into_iter().flatten();
    let fields: Map<String, Value> = fields
        .map(|(name, value)| (rename(name).unwrap_or(name).to_owned(), value.clone()))
        .collect();
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_survives_both_ways() {
        let new = json!({
            "metadata": {"name": "ledger.1"}, "regarding": {"kind": "PgBouncer"}, "note": "rotated",
            "reason": "Rotated", "reportingController": "bouncert", "deprecatedCount": 3,
        });
        let stored = to_stored(&new);
        assert_eq!(stored["involvedObject"]["kind"], "PgBouncer");
        assert_eq!(stored["message"], "rotated");
        assert_eq!(to_new(&stored), new);
    }
}
