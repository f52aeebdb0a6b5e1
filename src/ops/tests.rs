//! Plans and journals that released versions have kept: every later version reads them.
//!
//! `tests/stored/<version>` holds them as that version's daemon wrote them, one for each kind of request
//! and some that were left halfway. They are never written anew. The text beside each is what is made of
//! it: what comes next, and what people read (`GOLDEN=update cargo test --lib ops::tests`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::ConfigMap;

use super::decide::{Directive, Observed, decide};
use super::ledger::{JOURNAL, Ledger, PLAN, read};
use super::view::{self, End, News};
use crate::instants::Shift;

fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stored");
    let folder = |path: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(path).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let mut files: Vec<PathBuf> = folder(&root)
        .iter()
        .flat_map(|version| folder(version))
        .collect();
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    files.sort();
    files
}

fn kept(path: &Path) -> BTreeMap<String, String> {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn ledger(data: &BTreeMap<String, String>) -> Ledger {
    let map = ConfigMap {
        data: Some(data.clone()),
        ..ConfigMap::default()
    };
    read(map).unwrap()
}

/// What is made of a stored request: the steps in words, what comes next, the conditions, the events.
fn told(ledger: &Ledger) -> String {
    let (plan, journal) = (&ledger.plan, &ledger.journal);
    let name = |step: usize| format!("step {step}, {}", plan.steps[step]);
    let last = journal.entries().last();
    let now = last.map_or(time::macros::datetime!(2031-02-03 04:05 UTC), |last| {
        last.at.plus(time::Duration::SECOND)
    });
    let directive = decide(plan, journal, &Observed::default(), now);
    let mut end = None;
    let next = match directive {
        Directive::Run { step, .. } => format!("run {}", name(step)),
        Directive::Undo { step, .. } => format!("undo {}", name(step)),
        Directive::Wait { on, .. } => format!("wait on {}", name(on)),
        Directive::Finish(outcome) => {
            end = Some(End::Outcome(outcome));
            format!("finish {outcome:?}")
        }
        Directive::Stuck(step) => {
            end = Some(End::Stuck(step));
            format!("stuck at {}", name(step))
        }
    };
    let mut text = format!("change: {}\nnext: {next}\n", plan.change.name());
    for line in plan.outline() {
        writeln!(text, "step: {line}").unwrap();
    }
    let mut conditions = view::conditions(plan, journal, Some("a look"));
    conditions.extend(end.map(|end| view::ended(plan, journal, end, now)));
    for condition in conditions {
        writeln!(
            text,
            "condition: {}",
            serde_json::to_string(&condition).unwrap()
        )
        .unwrap();
    }
    let entries = journal.entries().iter();
    let news = entries.filter_map(|entry| view::news(plan, journal, entry));
    for news in news.chain(end.map(|end| view::end(plan, journal, end))) {
        let News {
            trouble,
            reason,
            message,
        } = news;
        writeln!(
            text,
            "event: trouble {trouble}, {}: {message}",
            reason.as_str()
        )
        .unwrap();
    }
    text
}

#[test]
fn stored_plans_and_journals_are_read_and_written_as_they_are() {
    let files = files();
    assert!(files.len() >= 15, "{files:?}");
    for path in files {
        let data = kept(&path);
        let ledger = ledger(&data);
        let name = path.display();
        assert_eq!(
            serde_json::to_string(&ledger.plan).unwrap(),
            data[PLAN],
            "{name}"
        );
        let journal = serde_json::to_string(&ledger.journal).unwrap();
        assert_eq!(journal, data[JOURNAL], "{name}");
    }
}

#[test]
fn stored_requests_go_on_and_are_told_as_ever() {
    for path in files() {
        let told = told(&ledger(&kept(&path)));
        let golden = path.with_extension("txt");
        if std::env::var("GOLDEN").is_ok_and(|wish| wish == "update") {
            fs::write(&golden, &told).unwrap();
        }
        assert_eq!(
            told,
            fs::read_to_string(&golden).unwrap(),
            "{}",
            golden.display()
        );
    }
}
