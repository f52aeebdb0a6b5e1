//! What a pooler's process may do once it runs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use bouncert::local::platform::{Platform, PlatformOptions};
use bouncert::local::runner::confine::{self, Confinement, Reach};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::hostile::{Victim, is_root};
use super::{Rig, process_id};

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_serves_within_its_confinement() {
    let data = TempDir::new().unwrap();
    let mut options = PlatformOptions::new(data.path().join("data"));
    options.pod_init = Some(env!("CARGO_BIN_EXE_bouncert").into());
    let rig = Rig::around(Platform::start(options).await.unwrap());
    rig.till(1).await;
    let pod = rig.ready_pod("till-0").await;
    let pid = process_id(&pod);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"] {
        assert!(status.contains(line), "{line} in {status}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    assert_eq!(core.unwrap().split_whitespace().nth(4), Some("0"));
    if is_root() {
        let range = PlatformOptions::new("").pod_uids;
        assert!(range.holds(fs::metadata(format!("/proc/{pid}")).unwrap().uid()));
    }
    let mut tasks = JoinSet::new();
    let console = super::console(super::pod_address(&pod), &mut tasks).await;
    console.simple_query("RELOAD").await.unwrap();
    assert!(super::listens_on(&console).await.is_ok());
    rig.stop().await;
}

#[test]
fn what_is_confined_reaches_its_own_files_only() {
    if confine::support().contains("Landlock: not offered") {
        eprintln!("NOT RUN: this kernel offers no Landlock");
        return;
    }
    let scratch = TempDir::new().unwrap();
    let victim = Victim::new(scratch.path());
    let kept = victim.path.join("keep");
    let run = |program: &str, argument: &Path, reach: &Reach| {
        let confinement = Confinement::new(Path::new(program), argument, None, reach);
        let output = Command::new(env!("CARGO_BIN_EXE_bouncert"))
            .args(confinement.arguments().unwrap())
            .output()
            .unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            complaint,
        )
    };
    let (said, complaint) = run("/bin/cat", &kept, &Reach::default());
    assert!(
        said.is_empty() && complaint.contains("Permission denied"),
        "{complaint}"
    );
    let reach = Reach {
        read: vec![victim.path.clone()],
        write: Vec::new(),
    };
    assert_eq!(run("/bin/cat", &kept, &reach).0, "precious");
    let (_, complaint) = run("/usr/bin/touch", &victim.path.join("new"), &reach);
    assert!(complaint.contains("Permission denied"), "{complaint}");
    victim.assert_unharmed();
    let nothing = Command::new(env!("CARGO_BIN_EXE_bouncert"))
        .args([confine::VERB, "{}"])
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert!(complaint.contains("local platform only"), "{complaint}");
}
