//! A minute of chaos, as anybody can have it.

use serde_json::{Value, json};

use super::{bouncert, stderr, stdout};

#[test]
fn a_minute_of_chaos_loses_nothing_and_every_request_ends() {
    let output = bouncert(&["chaos", "--minutes", "1", "--seed", "4", "--output", "json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["transactions_lost"], json!(0));
    assert_eq!(report["transactions_failed_by_us"], json!(0));
    assert!(report["transactions_committed"].as_u64() > Some(1_000));
    assert_eq!(report["complaints"], json!([]));
    assert!(!report["requests"].as_array().unwrap().is_empty());
    let faults = report["faults"].as_object().unwrap();
    assert!(faults.len() >= 5, "{faults:?}");
    for invariant in ["I2", "I3", "I6", "I7", "I9", "I10"] {
        let checked = &report["invariants"][invariant];
        assert!(checked["times"].as_u64() > Some(0), "{invariant}: {report}");
    }
}
