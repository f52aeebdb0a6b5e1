//! What the store promises.

use std::sync::Arc;

use serde_json::json;

use super::disk::Disk;
use super::history::{WATCH_HISTORY_MAX, WATCH_HISTORY_MAX_OCTETS};
use super::*;

fn key(name: &str) -> Key {
    Key {
        group: "ops.example".into(),
        resource: "ledgers".into(),
        namespace: "books".into(),
        name: name.into(),
    }
}

fn ledgers() -> Scope {
    Scope {
        group: "ops.example".into(),
        resource: "ledgers".into(),
        namespace: None,
    }
}

fn object(note: &str) -> Value {
    json!({"metadata": {"name": "x"}, "note": note})
}

#[test]
fn the_file_is_its_owners_alone_also_where_a_former_version_made_it() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let file = path.join("objects.redb");
    let mode = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    drop(Store::open(&path).unwrap());
    assert_eq!(mode(), 0o600);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    drop(Store::open(&path).unwrap());
    assert_eq!(mode(), 0o600);
}

#[test]
fn an_acknowledged_write_is_there_after_a_drop_without_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let revision = {
        let store = Store::open(&path).unwrap();
        store
            .put(&key("a"), object("first"), Expect::Absent)
            .unwrap();
        store
            .put(&key("b"), object("second"), Expect::Absent)
            .unwrap();
        let gone = revision_of(&store.get(&key("a")).unwrap());
        store.delete(&key("a"), gone).unwrap();
        store.revision()
    };
    let store = Store::open(&path).unwrap();
    assert_eq!(store.revision(), revision);
    assert!(store.get(&key("a")).is_none());
    assert_eq!(store.get(&key("b")).unwrap()["note"], "second");
    let mode = std::fs::metadata(&path).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777,
        0o700
    );
}

#[test]
fn a_write_that_believes_something_else_changes_nothing() {
    let store = Store::in_memory().unwrap();
    let first = store
        .put(&key("a"), object("first"), Expect::Absent)
        .unwrap();
    let again = store.put(&key("a"), object("other"), Expect::Absent);
    assert!(matches!(
        again,
        Err(StoreError::Conflict { found: Some(_), .. })
    ));
    let stale = store.put(
        &key("a"),
        object("other"),
        Expect::Revision(revision_of(&first) + 7),
    );
    assert!(matches!(stale, Err(StoreError::Conflict { .. })));
    let missing = store.delete(&key("b"), 3);
    assert!(matches!(
        missing,
        Err(StoreError::Conflict { found: None, .. })
    ));
    assert_eq!(store.get(&key("a")).unwrap()["note"], "first");
}

#[test]
fn a_list_holds_its_collection_only() {
    let store = Store::in_memory().unwrap();
    for name in ["b", "a"] {
        store.put(&key(name), object(name), Expect::Absent).unwrap();
    }
    let other = Key {
        namespace: "attic".into(),
        ..key("c")
    };
    store.put(&other, object("c"), Expect::Absent).unwrap();
    let foreign = Key {
        resource: "ledgersets".into(),
        ..key("d")
    };
    store.put(&foreign, object("d"), Expect::Absent).unwrap();
    let names = |scope: &Scope| -> Vec<String> {
        store
            .list(scope)
            .objects
            .into_iter()
            .map(|(key, _)| key.name)
            .collect()
    };
    assert_eq!(names(&ledgers()), ["c", "a", "b"]);
    assert_eq!(
        names(&Scope {
            namespace: Some("books".into()),
            ..ledgers()
        }),
        ["a", "b"]
    );
}

#[test]
fn a_directory_of_a_newer_program_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    Disk::open(dir.path(), Room::default())
        .unwrap()
        .mark_format(FORMAT + 4)
        .unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(
        matches!(error, StoreError::NewerFormat { found, supported } if found == 5 && supported == 1)
    );
    assert!(error.to_string().contains("format 5"), "{error}");
}

#[test]
fn a_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _held = Store::open(dir.path()).unwrap();
    assert!(matches!(
        Store::open(dir.path()),
        Err(StoreError::InUse { .. })
    ));
}

#[tokio::test]
async fn a_follower_sees_every_change_in_order() {
    let store = Arc::new(Store::in_memory().unwrap());
    let mut follower = store.subscribe(store.revision()).unwrap();
    let added = store.put(&key("a"), object("1"), Expect::Absent).unwrap();
    let changed = store
        .put(
            &key("a"),
            object("2"),
            Expect::Revision(revision_of(&added)),
        )
        .unwrap();
    store.delete(&key("a"), revision_of(&changed)).unwrap();
    let seen = follower.next().await.unwrap();
    let kinds: Vec<_> = seen.iter().map(|change| change.kind).collect();
    assert_eq!(
        kinds,
        [ChangeKind::Added, ChangeKind::Modified, ChangeKind::Deleted]
    );
    assert_eq!(seen[1].before.as_ref().unwrap()["note"], "1");
    assert_eq!(follower.revision(), store.revision());
}

#[test]
fn the_history_forgets_its_oldest_change_and_says_so() {
    let mut history = History::starting_at(5);
    let kept = WATCH_HISTORY_MAX as u64;
    for revision in 6..=kept + 6 {
        history.push(Change {
            revision,
            kind: ChangeKind::Modified,
            key: key("a"),
            object: Arc::new(object("n")),
            before: None,
            octets: 1,
        });
    }
    assert!(matches!(
        history.after(5, 1),
        Err(StoreError::Gone {
            asked: 5,
            oldest: 6
        })
    ));
    let first = history.after(6, 3).unwrap();
    assert_eq!(
        first
            .iter()
            .map(|change| change.revision)
            .collect::<Vec<_>>(),
        [7, 8, 9]
    );
    assert!(history.after(kept + 6, 3).unwrap().is_empty());
}

#[test]
fn many_writers_share_commits_and_lose_nothing() {
    const WRITERS: usize = 8;
    const ROUNDS: usize = 12;
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(dir.path()).unwrap());
    let start = store.revision();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let store = &store;
            scope.spawn(move || {
                let own = key(&format!("own-{writer}"));
                let mut last = store.put(&own, object("0"), Expect::Absent).unwrap();
                for round in 1..ROUNDS {
                    let expect = Expect::Revision(revision_of(&last));
                    last = store.put(&own, object(&round.to_string()), expect).unwrap();
                    assert!(store.get(&own).unwrap() == last, "shown when acknowledged");
                }
            });
        }
    });
    let mut seen = Vec::new();
    while seen.last() != Some(&store.revision()) {
        let from = seen.last().copied().unwrap_or(start);
        seen.extend(
            store
                .changes_after(from, 64)
                .unwrap()
                .iter()
                .map(|change| change.revision),
        );
    }
    let all: Vec<u64> = (start + 1..=start + (WRITERS * ROUNDS) as u64).collect();
    assert_eq!(seen, all, "one revision each, in order");
    drop(store);
    let again = Store::open(dir.path()).unwrap();
    let notes = again
        .list(&ledgers())
        .objects
        .into_iter()
        .map(|(_, o)| o["note"].clone());
    assert_eq!(notes.collect::<Vec<_>>(), vec!["11"; WRITERS]);
}

#[test]
fn of_writers_with_one_belief_one_wins() {
    let store = Store::in_memory().unwrap();
    let first = revision_of(&store.put(&key("a"), object("0"), Expect::Absent).unwrap());
    let wins = std::thread::scope(|scope| {
        let race = |n: usize| {
            let store = &store;
            scope.spawn(move || {
                store.put(&key("a"), object(&n.to_string()), Expect::Revision(first))
            })
        };
        let racers: Vec<_> = (0..6).map(race).collect();
        racers
            .into_iter()
            .filter_map(|racer| racer.join().unwrap().ok())
            .count()
    });
    assert_eq!(wins, 1);
}

#[test]
fn a_disk_that_was_full_takes_writes_again_and_keeps_none_that_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    let room = Room::default();
    let store = Store::open_on(dir.path(), room.clone()).unwrap();
    let kept = store
        .put(&key("a"), object("kept"), Expect::Absent)
        .unwrap();
    room.fill();
    for _ in 0..2 {
        let refused = store.put(&key("b"), object("lost"), Expect::Absent);
        assert!(
            matches!(refused, Err(StoreError::Storage { .. })),
            "not a conflict: {refused:?}"
        );
        let before = Expect::Revision(revision_of(&kept));
        let refused = store.put(&key("a"), object("lost"), before);
        assert!(
            matches!(refused, Err(StoreError::Storage { .. })),
            "{refused:?}"
        );
    }
    assert!(store.get(&key("b")).is_none());
    assert_eq!(store.get(&key("a")).unwrap()["note"], "kept");
    room.free();
    store
        .put(&key("c"), object("after"), Expect::Absent)
        .unwrap();
    drop(store);
    let again = Store::open(dir.path()).unwrap();
    assert_eq!(again.get(&key("a")).unwrap()["note"], "kept");
    assert!(again.get(&key("b")).is_none());
    assert_eq!(again.get(&key("c")).unwrap()["note"], "after");
}

#[test]
fn history_is_kept_by_octets_as_well_and_the_newest_change_always() {
    let mut history = History::starting_at(5);
    let large = |revision, octets| Change {
        revision,
        kind: ChangeKind::Modified,
        key: key("a"),
        object: Arc::new(object("n")),
        before: None,
        octets,
    };
    let third = WATCH_HISTORY_MAX_OCTETS / 3;
    for revision in 6..46 {
        history.push(large(revision, third));
        assert!(history.octets() <= WATCH_HISTORY_MAX_OCTETS);
    }
    assert_eq!(history.after(42, 9).unwrap().len(), 3);
    assert!(history.after(41, 9).is_err());
    history.push(large(46, WATCH_HISTORY_MAX_OCTETS * 2));
    let newest = history.after(45, 9).unwrap();
    assert_eq!((newest.len(), newest[0].revision), (1, 46));
    history.push(large(47, 1));
    assert_eq!(history.octets(), 1);
}
