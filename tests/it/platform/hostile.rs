//! Pods, volumes, links and processes that mean harm: the machine outside of a pod stays as it was.
//!
//! Each test keeps its victims in its own scratch directory, and climbs no further than there.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bouncert::local::platform::{Platform, PlatformOptions};
use bouncert::local::store::{Expect, Key};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{INI, Rig, SOON, process_id, runs, template, volumes};
use crate::support::eventually;

/// An id that no account of a test machine has.
const ORDINARY: u32 = 54_242;

/// A directory that must stay as it is.
pub(super) struct Victim {
    pub(super) path: PathBuf,
}

impl Victim {
    pub(super) fn new(scratch: &Path) -> Self {
        let path = scratch.join("victim");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("keep"), "precious").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { path }
    }

    pub(super) fn assert_unharmed(&self) {
        let about = fs::metadata(&self.path).unwrap();
        assert_eq!(about.permissions().mode() & 0o777, 0o755);
        assert_eq!(about.uid(), rustix::process::geteuid().as_raw());
        assert_eq!(fs::read_dir(&self.path).unwrap().count(), 1);
        assert_eq!(
            fs::read_to_string(self.path.join("keep")).unwrap(),
            "precious"
        );
    }

    /// The way from `from` up and down to the victim.
    fn relative_from(&self, from: &Path) -> String {
        let up = "../".repeat(from.components().count() - 1);
        format!("{up}{}", self.path.strip_prefix("/").unwrap().display())
    }
}

fn pod(change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "lone"}, "spec": template()["spec"]
    });
    change(&mut pod["spec"]);
    pod
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What a pod waits for.
async fn waiting_for(rig: &Rig, name: &str) -> String {
    eventually(SOON, async || {
        let pod = rig.api::<Pod>().get(name).await.unwrap();
        let waiting = pod
            .status
            .and_then(|status| status.container_statuses)
            .and_then(|all| all[0].state.clone())
            .and_then(|state| state.waiting)
            .and_then(|waiting| waiting.message);
        waiting.filter(|text| !text.is_empty()).ok_or("nothing yet")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_names_leave_its_directory_is_refused() {
    let data = TempDir::new().unwrap();
    let victim = Victim::new(data.path());
    let rig = Rig::start(&data).await;
    rig.secret("\"keeper\" \"\"\n").await;
    let away = victim.relative_from(&rig.runtime.join("uid/volumes"));
    for name in [victim.path.display().to_string(), away, "..".to_owned()] {
        let bad = pod(|spec| {
            spec["volumes"][0]["name"] = json!(name);
            spec["containers"][0]["volumeMounts"][0]["name"] = json!(name);
        });
        let bad: Pod = serde_json::from_value(bad).unwrap();
        let refused = rig.api().create(&PostParams::default(), &bad).await;
        let kube::Error::Api(status) = refused.unwrap_err() else {
            panic!("an answer of the API was expected")
        };
        assert_eq!(status.code, 422, "{status:?}");
        assert!(
            status.message.contains("spec.volumes[0].name"),
            "{status:?}"
        );
    }
    for key in ["../evil", "..", "..data", "a/b"] {
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {"name": "evil"}, "stringData": {key: "x"}
        }))
        .unwrap();
        assert!(
            rig.api()
                .create(&PostParams::default(), &secret)
                .await
                .is_err()
        );
        let map: ConfigMap = serde_json::from_value(json!({
            "metadata": {"name": "evil"}, "data": {key: "x"}
        }))
        .unwrap();
        assert!(
            rig.api()
                .create(&PostParams::default(), &map)
                .await
                .is_err()
        );
    }
    victim.assert_unharmed();
    rig.stop().await;
}

fn key(resource: &str, name: &str) -> Key {
    Key {
        group: String::new(),
        resource: resource.to_owned(),
        namespace: "default".to_owned(),
        name: name.to_owned(),
    }
}

/// Objects that did not pass admission, such as those of an older version's store.
#[tokio::test(flavor = "multi_thread")]
async fn the_runner_refuses_what_admission_has_let_through() {
    let data = TempDir::new().unwrap();
    let victim = Victim::new(data.path());
    let platform = Platform::start(PlatformOptions::new(data.path().join("data")))
        .await
        .unwrap();
    let store = platform.server().store().clone();
    let rig = Rig::around(platform);
    rig.secret("\"keeper\" \"\"\n").await;
    let put = |resource: &str, name: &str, object: Value| {
        store
            .put(&key(resource, name), object, Expect::Absent)
            .unwrap();
    };
    put(
        "secrets",
        "evil",
        json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": "evil", "namespace": "default", "uid": "5ec"},
            "data": {"../evil": "eA==", "pgbouncer.ini": "eA=="}}),
    );
    // As the API server would store it, and then changed.
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let sound: Pod = serde_json::from_value(pod(|spec| spec["nodeName"] = json!("local"))).unwrap();
    let sound = rig.api().create(&dry, &sound).await.unwrap();
    let sound = serde_json::to_value(sound).unwrap();
    let pod = |change: &dyn Fn(&mut Value)| {
        let mut pod = sound.clone();
        change(&mut pod["spec"]);
        pod
    };
    let away = victim.relative_from(&rig.runtime.join("uid/volumes"));
    let named = |name: String| {
        move |spec: &mut Value| {
            spec["volumes"][0]["name"] = json!(name);
            spec["containers"][0]["volumeMounts"][0]["name"] = json!(name);
        }
    };
    let climbs = json!([{"key": "userlist", "path": format!("../../../{}", "x")}]);
    let cases: [(&str, Value, &str); 5] = [
        (
            "absolute",
            pod(&named(victim.path.display().to_string())),
            "RFC 1123 label",
        ),
        ("relative", pod(&named(away)), "RFC 1123 label"),
        (
            "items",
            pod(&|spec| spec["volumes"][0]["secret"]["items"] = climbs.clone()),
            "must not contain '..'",
        ),
        (
            "keys",
            pod(&|spec| spec["volumes"][0]["secret"]["secretName"] = json!("evil")),
            "valid config key",
        ),
        (
            "below",
            pod(&|spec| {
                spec["containers"][0]["volumeMounts"][0]["subPath"] = json!("../../victim");
            }),
            "must not contain '..'",
        ),
    ];
    for (name, mut object, why) in cases {
        object["metadata"] =
            json!({"name": name, "namespace": "default", "uid": format!("u-{name}")});
        put("pods", name, object);
        let message = waiting_for(&rig, name).await;
        assert!(message.contains(why), "{name}: {message}");
    }
    let mut object = pod(&|_| {});
    object["metadata"] = json!({"name": "climber", "namespace": "default", "uid": "../../climber"});
    put("pods", "climber", object);
    victim.assert_unharmed();
    rig.stop().await;
    victim.assert_unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn links_planted_in_a_pods_directory_lead_no_write_and_no_removal_outside() {
    let data = TempDir::new().unwrap();
    let victim = Victim::new(data.path());
    let rig = Rig::start(&data).await;
    rig.till(1).await;
    let pod = rig.ready_pod("till-0").await;
    let volume = volumes(process_id(&pod)).join("till-ini");
    let root = volume.parent().unwrap().parent().unwrap().to_owned();
    let plant = |at: &Path| {
        if at.is_symlink() || at.is_file() {
            fs::remove_file(at).unwrap();
        }
        symlink(&victim.path, at).unwrap();
    };
    for name in [
        "..data",
        "..r2",
        "..link_new",
        "..file_new",
        "userlist",
        "stray",
    ] {
        plant(&volume.join(name));
    }
    plant(&root.join("..file_new"));
    plant(&root.join("run/pgbouncer.pid"));
    plant(&root.join("run/out"));
    let patch = json!({"stringData": {"userlist": "\"keeper\" \"\"\n\"guest\" \"\"\n"}});
    rig.api::<Secret>()
        .patch("till-ini", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    eventually(SOON, async || {
        let text = fs::read_to_string(volume.join("userlist")).unwrap_or_default();
        text.contains("guest").then_some(()).ok_or(text)
    })
    .await;
    assert!(!volume.join("stray").is_symlink(), "what is not ours goes");
    victim.assert_unharmed();
    // The whole directory goes with the pod.
    super::kill(process_id(&pod));
    let again = eventually(SOON, async || {
        let pod = rig.ready_pod("till-0").await;
        (super::restarts(&pod) == 1).then_some(pod).ok_or("old")
    })
    .await;
    assert!(runs(process_id(&again)));
    rig.stop().await;
    assert!(!root.exists());
    victim.assert_unharmed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_the_machine_is_given_only_below_an_allowed_prefix() {
    let data = TempDir::new().unwrap();
    let victim = Victim::new(data.path());
    fs::write(victim.path.join("keep"), "precious").unwrap();
    let allowed = data.path().canonicalize().unwrap().join("allowed");
    fs::create_dir(&allowed).unwrap();
    for dir in [data.path(), &allowed] {
        // The pod's own user has to get there.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(
        allowed.join("pgbouncer.ini"),
        INI.replace("auth_file = /etc/config/userlist\n", ""),
    )
    .unwrap();
    symlink("../victim", allowed.join("out")).unwrap();
    let mut options = PlatformOptions::new(data.path().join("data"));
    options.allow_host_paths = vec![allowed.clone()];
    let rig = Rig::around(Platform::start(options).await.unwrap());
    for (name, path, why) in [
        ("elsewhere", victim.path.clone(), "--allow-host-path"),
        ("climbing", allowed.join("out"), "cannot be opened below"),
        (
            "beside",
            data.path().join("allowed-not"),
            "--allow-host-path",
        ),
    ] {
        let mut object = pod(|spec| {
            spec["volumes"][0] = json!({"name": "till-ini", "hostPath": {"path": path}});
        });
        object["metadata"]["name"] = json!(name);
        rig.create::<Pod>(object).await;
        let message = waiting_for(&rig, name).await;
        assert!(message.contains(why), "{name}: {message}");
    }
    let object = pod(|spec| {
        spec["volumes"][0] = json!({"name": "till-ini", "hostPath": {"path": allowed}});
    });
    rig.create::<Pod>(object).await;
    rig.ready_pod("lone").await;
    victim.assert_unharmed();
    rig.stop().await;
    assert!(allowed.join("pgbouncer.ini").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_pod_can_read_the_files_of_another() {
    if !is_root() {
        return;
    }
    let data = TempDir::new().unwrap();
    let rig = Rig::start(&data).await;
    rig.till(2).await;
    let mut ids = Vec::new();
    for name in ["till-0", "till-1"] {
        let pid = process_id(&rig.ready_pod(name).await);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = |field: &str| -> Vec<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            let numbers = line.unwrap().split_whitespace();
            numbers.map(|number| number.parse().unwrap()).collect()
        };
        let (users, groups) = (line("Uid:"), line("Gid:"));
        assert!(users.iter().all(|id| *id == users[0]), "{users:?}");
        assert!(groups.iter().all(|id| *id == groups[0]), "{groups:?}");
        assert!(users[0] != 0 && groups[0] != 0);
        assert_eq!(line("Groups:"), [0_u32; 0], "no supplementary group");
        ids.push((users[0], groups[0]));

        // No file is open to others, and the pod cannot change what the platform writes for it.
        let root = volumes(pid).parent().unwrap().to_owned();
        for place in ["", "pgbouncer.ini", "volumes", "volumes/till-ini", "run"] {
            let about = fs::metadata(root.join(place)).unwrap();
            assert_eq!(about.permissions().mode() & 0o007, 0, "{place}");
            assert_eq!(about.gid(), groups[0], "{place}");
            let owner = if place == "run" { users[0] } else { 0 };
            assert_eq!(about.uid(), owner, "{place}");
        }
        let key = fs::metadata(volumes(pid).join("till-ini/userlist")).unwrap();
        assert_eq!((key.uid(), key.gid()), (0, groups[0]));
        assert_eq!(key.permissions().mode() & 0o777, 0o640);
    }
    assert!(ids[0].0 != ids[1].0 && ids[0].1 != ids[1].1, "{ids:?}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disguised_process_is_neither_taken_over_nor_ended() {
    let data = TempDir::new().unwrap();
    let rig = Rig::start(&data).await;
    rig.till(1).await;
    let pid = process_id(&rig.ready_pod("till-0").await);
    let ini = volumes(pid).parent().unwrap().join("pgbouncer.ini");
    rig.vanish().await;
    super::kill(pid);
    eventually(SOON, async || (!runs(pid)).then_some(()).ok_or(pid)).await;
    let mut disguised = disguise(&ini);
    let rig = Rig::start(&data).await;
    let pod = eventually(SOON, async || {
        let pod = rig.ready_pod("till-0").await;
        (process_id(&pod) != pid)
            .then_some(pod)
            .ok_or("not looked at yet")
    })
    .await;
    assert_ne!(process_id(&pod), i32::try_from(disguised.id()).unwrap());
    assert!(disguised.try_wait().unwrap().is_none(), "it still runs");
    disguised.kill().unwrap();
    disguised.wait().unwrap();
    rig.stop().await;
}

/// A process whose command line is that of a pooler, of another user if possible.
fn disguise(ini: &Path) -> Child {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "read line", "pgbouncer"]).arg(ini);
    command.stdin(Stdio::piped());
    if is_root() {
        command.uid(ORDINARY).gid(ORDINARY);
    }
    command.spawn().unwrap()
}

/// The tests of this file and of `confined` as a user that is not root. Where that user starts them, they have run
/// already.
#[test]
fn the_same_holds_where_an_ordinary_user_starts_the_platform() {
    if !is_root() {
        return;
    }
    let scratch = TempDir::new().unwrap();
    chown(scratch.path(), Some(ORDINARY), Some(ORDINARY)).unwrap();
    let program = std::env::current_exe().unwrap();
    let output = Command::new(&program)
        .args([
            "platform::hostile::",
            "platform::confined::",
            "--test-threads",
            "1",
            "--skip",
            "the_same_holds",
        ])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("TMPDIR", scratch.path())
        .current_dir(scratch.path())
        .uid(ORDINARY)
        .gid(ORDINARY)
        .output();
    let output = match output {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            eprintln!("NOT RUN: user {ORDINARY} may not run {}", program.display());
            return;
        }
        output => output.unwrap(),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("test result: ok. 8 passed"), "{text}");
    let _ = fs::remove_dir_all(format!("/tmp/bouncert-{ORDINARY}"));
}
