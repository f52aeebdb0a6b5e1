//! The demo, as `make demo` runs it: everything succeeds, nothing fails, nothing is lost, nothing is
//! left.

use serde_json::{Value, json};

use super::{bouncert, stderr, stdout};
use crate::versions;

#[test]
fn the_demo_changes_tls_four_times_under_load_and_loses_nothing() {
    the_demo_succeeds(&[]);
}

/// The same requests on versions that drain by other means.
#[test]
fn nothing_fails_and_nothing_is_lost_on_later_versions_either() {
    for program in versions::others() {
        the_demo_succeeds(&["--pgbouncer", program.path.to_str().unwrap()]);
    }
}

fn the_demo_succeeds(options: &[&str]) {
    let mut words = vec!["demo", "--output", "json"];
    words.extend(options);
    let output = bouncert(&words);
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let steps = report["steps"].as_array().unwrap();
    let names: Vec<&Value> = steps.iter().map(|step| &step["name"]).collect();
    assert_eq!(
        names,
        ["add-tls", "rotate-tls", "change-issuer", "remove-tls"]
    );
    for step in steps {
        assert_eq!(step["phase"], "Successful", "{step}");
        assert_eq!(step["pods_proved"], json!(3), "{step}");
        assert_eq!(step["transactions_failed"], json!(0), "{step}");
        assert_eq!(step["transactions_lost"], json!(0), "{step}");
        assert!(
            step["transactions_committed"].as_u64() > Some(100),
            "{step}"
        );
        assert!(step["seconds"].as_f64() > Some(0.0), "{step}");
        assert!(step["connections_closed"].is_u64(), "{step}");
        assert!(step["max_wait_ms"].is_u64(), "{step}");
    }
    let said = stderr(&output);
    assert!(said.contains("rotate-tls: created"), "progress: {said}");
}

#[test]
fn by_restart_nothing_fails_and_by_reload_nothing_is_even_closed() {
    let output = bouncert(&["demo", "--compare", "--output", "json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let steps = report["steps"].as_array().unwrap();
    let named = |part: &str| {
        let of = |step: &&Value| step["name"].as_str().unwrap().contains(part);
        steps.iter().filter(of).collect::<Vec<_>>()
    };
    let (restarts, reloads) = (named("-by-restart"), named("-by-reload"));
    assert_eq!((restarts.len(), reloads.len()), (8, 6));
    for step in restarts.iter().chain(&reloads) {
        assert_eq!(step["phase"], "Successful", "{step}");
        assert_eq!(step["transactions_failed"], json!(0), "{step}");
        assert_eq!(step["transactions_lost"], json!(0), "{step}");
    }
    for step in reloads {
        assert_eq!(step["connections_closed"], json!(0), "{step}");
    }
    // What the others are compared with: on either number of replicas it does cut.
    let evicted = named("evict-undrained");
    let failed = |step: &&&Value| step["transactions_failed"].as_u64() > Some(0);
    assert_eq!(evicted.len(), 2);
    assert!(evicted.iter().any(|step| failed(&step)), "{evicted:?}");
}
