//! What is in memory stays there: no core dumps.
//!
//! The memory of a daemon and of the local platform holds private keys, also such that no code of ours can
//! overwrite (ring's copies, buffers of HTTP and TLS). Two things keep them from a file:
//!
//! - `RLIMIT_CORE` 0: the kernel writes no core file. Programs that are started inherit it: poolers, too.
//! - `PR_SET_DUMPABLE` 0: a kernel that pipes cores into a program (`systemd-coredump`, `apport`) does not
//!   ask the limit, but this. It also keeps other processes of the same user from reading the memory
//!   through `/proc/<pid>/mem` or `ptrace`. Programs that are started do not inherit it.

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// Switches core dumps of this process off. A system that does not let us is no reason not to run.
pub(super) fn forbid_core_dumps() {
    let hard = getrlimit(Resource::Core).maximum;
    let none = Rlimit {
        current: Some(0),
        maximum: hard,
    };
    let limited = setrlimit(Resource::Core, none);
    let hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    for error in [limited, hidden].into_iter().filter_map(Result::err) {
        tracing::warn!(%error, "core dumps stay possible");
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn a_process_that_holds_keys_leaves_no_core() {
        forbid_core_dumps();
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
    }
}
