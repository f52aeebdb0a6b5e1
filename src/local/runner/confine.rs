//! What a pooler's process may do: the last step before the pooler's program begins.
//!
//! The platform starts its own program with [`VERB`], and that process confines itself and then
//! becomes the pooler (`exec`). So nothing runs between `fork` and `exec`, and no unsafe code is
//! needed. In this order:
//!
//! ```text
//!   rlimits ─► groups, group, user ─► Landlock ─► no_new_privs, seccomp ─► exec
//! ```
//!
//! What the kernel lacks is left out; [`support`] says what it offers.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, Scope, path_beneath_rules,
};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};
use serde::{Deserialize, Serialize};

use super::identity::Identity;

/// First argument of the program that confines itself. It is no verb for people.
pub const VERB: &str = "pod-init";

/// The newest Landlock that is asked for (Linux 6.12); an older kernel gives what it has.
const LANDLOCK: ABI = ABI::V6;
/// Processes and threads of a pod's own user. A pooler has one, and a few while it resolves names.
const PROCESSES_MAX: u64 = 64;
/// Where programs and their libraries are.
const PROGRAMS: [&str; 8] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/opt",
    "/nix/store",
];
/// What a C library reads: names of hosts and users, time zones, OpenSSL's settings, processors.
const SETTINGS: [&str; 7] = [
    "/etc",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager/resolv.conf",
    "/proc/self",
    "/proc/cpuinfo",
    "/sys/devices/system/cpu",
];
/// Devices that hold nothing.
const DEVICES: [&str; 5] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
];
/// Calls that no pooler makes, and that attacks on the kernel begin with. They fail with `EPERM`.
const DENIED: [i64; 38] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// Files that a pooler may reach besides programs and their settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Directories and files that it may read.
    pub read: Vec<PathBuf>,
    /// Directories that it may write to.
    pub write: Vec<PathBuf>,
}

/// A pooler that is to be confined and started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confinement {
    /// The user and group to become.
    pub user: Option<(u32, u32)>,
    /// The files that it may reach.
    pub reach: Reach,
    /// The program.
    pub program: PathBuf,
    /// Its only argument.
    pub ini: PathBuf,
}

/// A pooler that is not started.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// The platform and the program that confines do not fit together.
    #[error("{VERB} is started by the local platform only")]
    NotOurs(#[from] serde_json::Error),
    /// A limit or a user cannot be taken.
    #[error("cannot {what}")]
    Step {
        /// Which step.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Landlock is there and does not take the rules.
    #[error("cannot restrict the files that the pooler reaches")]
    Landlock(#[from] landlock::RulesetError),
    /// seccomp is there and does not take the filter.
    #[error("cannot restrict the system calls of the pooler")]
    Seccomp(#[from] seccompiler::Error),
}

// === impl Confinement ===

impl Confinement {
    /// The confinement of `program` on `ini`.
    pub fn new(program: &Path, ini: &Path, identity: Option<Identity>, reach: &Reach) -> Self {
        let mut reach = reach.clone();
        // Programs that are no package's have their libraries beside them.
        reach.read.extend(program.parent().map(Path::to_owned));
        Self {
            user: identity.map(|id| (id.uid, id.gid)),
            reach,
            program: program.to_owned(),
            ini: ini.to_owned(),
        }
    }

    /// The arguments of the program that confines. The last two are those of a pooler, so that
    /// people find it in a list of processes from the first moment.
    pub fn arguments(&self) -> Result<[std::ffi::OsString; 4], serde_json::Error> {
        Ok([
            VERB.into(),
            serde_json::to_string(self)?.into(),
            self.program.clone().into(),
            self.ini.clone().into(),
        ])
    }
}

/// Confines this process as `text` says and becomes the pooler. Returns only if that fails.
pub fn become_pooler(text: &str) -> ConfineError {
    match confined(text) {
        Ok(confinement) => {
            let source = Command::new(&confinement.program)
                .arg(&confinement.ini)
                .exec();
            ConfineError::Step {
                what: "run the pooler's program",
                source,
            }
        }
        Err(error) => error,
    }
}

fn confined(text: &str) -> Result<Confinement, ConfineError> {
    let confinement: Confinement = serde_json::from_str(text)?;
    limits(confinement.user.is_some()).map_err(step("set limits of resources"))?;
    if let Some((uid, gid)) = confinement.user {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        setgroups(&[])
            .and_then(|()| setgid(gid))
            .and_then(|()| setuid(uid))
            .map_err(io::Error::from)
            .map_err(step("become the pod's user"))?;
    }
    restrict_files(&confinement.reach)?;
    restrict_calls()?;
    Ok(confinement)
}

fn step(what: &'static str) -> impl Fn(io::Error) -> ConfineError {
    move |source| ConfineError::Step { what, source }
}

/// A core file would hold keys. The number of processes counts per user, so it is bounded only where
/// the user is the pod's own.
fn limits(own_user: bool) -> io::Result<()> {
    let at_most = |n| Rlimit {
        current: Some(n),
        maximum: Some(n),
    };
    setrlimit(Resource::Core, at_most(0))?;
    if own_user {
        setrlimit(Resource::Nproc, at_most(PROCESSES_MAX))?;
    }
    Ok(())
}

fn restrict_files(reach: &Reach) -> Result<(), landlock::RulesetError> {
    let (read, all) = (AccessFs::from_read(LANDLOCK), AccessFs::from_all(LANDLOCK));
    Ruleset::default()
        .handle_access(all)?
        .scope(Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(PROGRAMS, read))?
        .add_rules(path_beneath_rules(SETTINGS, read))?
        .add_rules(path_beneath_rules(&reach.read, read))?
        .add_rules(path_beneath_rules(&reach.write, all))?
        .add_rules(path_beneath_rules(DEVICES, all))?
        .restrict_self()?;
    Ok(())
}

/// Sets `no_new_privs` as well, which the kernel asks for.
fn restrict_calls() -> Result<(), seccompiler::Error> {
    let Ok(machine) = TargetArch::try_from(std::env::consts::ARCH) else {
        return Ok(());
    };
    let rules: BTreeMap<i64, Vec<_>> = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, machine);
    let program: BpfProgram = filter?.try_into()?;
    apply_filter(&program)
}

/// What of it this kernel offers, for the log.
pub fn support() -> String {
    let offers = |abi: ABI| {
        let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        let handled = rules.handle_access(AccessFs::from_all(abi));
        handled.and_then(Ruleset::create).is_ok()
    };
    let newest = [
        (ABI::V5, "ABI 5 (Linux 6.10) or newer"),
        (ABI::V3, "ABI 3 (Linux 6.2)"),
        (ABI::V2, "ABI 2 (Linux 5.19)"),
        (ABI::V1, "ABI 1 (Linux 5.13)"),
    ];
    let landlock = newest.into_iter().find(|(abi, _)| offers(*abi));
    let landlock = landlock.map_or("not offered by this kernel", |(_, text)| text);
    let seccomp = match TargetArch::try_from(std::env::consts::ARCH) {
        Ok(_) => "on",
        Err(_) => "not offered on this processor",
    };
    format!("Landlock: {landlock}; seccomp: {seccomp}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confinement_is_read_as_it_was_written() {
        let reach = Reach {
            read: vec!["/run/pod".into()],
            write: vec!["/run/pod/run".into()],
        };
        let identity = Some(Identity { uid: 7, gid: 7 });
        let (program, ini) = (Path::new("/opt/x/pgbouncer"), Path::new("/run/pod/a.ini"));
        let written = Confinement::new(program, ini, identity, &reach);
        assert!(written.reach.read.contains(&"/opt/x".into()));
        let arguments = written.arguments().unwrap();
        let read: Confinement = serde_json::from_str(arguments[1].to_str().unwrap()).unwrap();
        assert_eq!(read, written);
        assert_eq!(arguments[3], "/run/pod/a.ini");
        assert!(serde_json::from_str::<Confinement>("{}").is_err());
    }

    #[test]
    fn denied_calls_are_named_once() {
        let mut calls = DENIED.to_vec();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(calls.len(), DENIED.len());
    }
}
