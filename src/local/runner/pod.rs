//! What happens next to a pod: a pure function of what was observed and of the time.
//!
//! ```text
//!             Prepare                Start                 (process ends)
//!   absent ───────────► material ───────────► running ───────────────────► exited
//!     ▲  waits while a Secret is missing                                      │
//!     └──────────────── after the restart pause, volumes read afresh ◄────────┘
//!
//!   asked to stop:  running ─Terminate─► wait for the grace period ─Kill─► exited ─Remove─► gone
//! ```
//!
//! Effects are elsewhere (`worker`); they report back only through the next [`Observed`].

use time::{Duration, OffsetDateTime};

use crate::instants::Shift;

/// Pause before the first restart: long enough for the port to be free again, short enough not to
/// be noticed.
pub const RESTART_FIRST: Duration = Duration::milliseconds(100);
/// Longest pause between restarts of a process that keeps ending.
pub const RESTART_MAX: Duration = Duration::seconds(30);
/// A process that lived this long is taken to have been sound: its end starts the count anew.
pub const SOUND_AFTER: Duration = Duration::seconds(10);
/// Longest grace; the API server refuses a longer one.
pub const GRACE_MAX_S: i64 = i32::MAX as i64;
/// Grace of a pod whose object vanished without a grace period (forced deletion).
pub const FORCED_GRACE: Duration = Duration::seconds(1);

/// The pooler process of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// None was started yet.
    Absent,
    /// It runs.
    Running,
    /// It ended.
    Exited {
        /// When.
        at: OffsetDateTime,
    },
}

/// The files and the address that the process needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Material {
    /// Not gathered since the last start.
    Stale,
    /// Something is missing; look again then at the latest.
    Missing {
        /// When to look again without being woken.
        retry_at: OffsetDateTime,
    },
    /// All there, written.
    Ready,
}

/// A stop that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopping {
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// When SIGTERM was sent, if it was.
    pub terminated_at: Option<OffsetDateTime>,
    /// Whether SIGKILL was sent.
    pub killed: bool,
}

/// Whether a process that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Always, also after exit code 0.
    Always,
    /// Never again.
    Never,
}

/// All that [`decide`] looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The process.
    pub process: Process,
    /// Its files and address.
    pub material: Material,
    /// The stop, if one was asked for.
    pub stopping: Option<Stopping>,
    /// Short-lived runs in a row (see [`quick_exits`]).
    pub quick_exits: u32,
    /// What the pod wants after an end.
    pub restart: Restart,
}

/// What the worker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Choose the address, gather and write the volumes.
    Prepare,
    /// Start the process.
    Start,
    /// Send SIGTERM.
    Terminate,
    /// Send SIGKILL: the grace period is over.
    Kill,
    /// Remove the pod's files and its object.
    Remove,
    /// Nothing until something changes, or until then.
    Wait {
        /// When to decide again without being woken.
        until: Option<OffsetDateTime>,
    },
}

/// The next action for a pod.
pub fn decide(observed: &Observed, now: OffsetDateTime) -> Action {
    if let Some(stopping) = observed.stopping {
        return stop(observed.process, stopping, now);
    }
    match observed.process {
        Process::Running => Action::Wait { until: None },
        Process::Absent => bring_up(observed.material, now),
        Process::Exited { .. } if observed.restart == Restart::Never => {
            Action::Wait { until: None }
        }
        Process::Exited { at } => {
            let due = at.plus(restart_pause(observed.quick_exits));
            if now < due {
                Action::Wait { until: Some(due) }
            } else {
                bring_up(observed.material, now)
            }
        }
    }
}

/// The number of short-lived runs in a row after one more run of that length.
pub fn quick_exits(before: u32, ran: Duration) -> u32 {
    if ran >= SOUND_AFTER {
        0
    } else {
        before.saturating_add(1)
    }
}

/// The pause before a restart: nearly none after a sound run or a first quick end, then 1, 2, 4 …
/// seconds up to [`RESTART_MAX`].
pub fn restart_pause(quick_exits: u32) -> Duration {
    match quick_exits {
        0 | 1 => RESTART_FIRST,
        n => Duration::seconds(1_i64 << (n - 2).min(10)).min(RESTART_MAX),
    }
}

fn bring_up(material: Material, now: OffsetDateTime) -> Action {
    match material {
        Material::Ready => Action::Start,
        Material::Stale => Action::Prepare,
        Material::Missing { retry_at } if now >= retry_at => Action::Prepare,
        Material::Missing { retry_at } => Action::Wait {
            until: Some(retry_at),
        },
    }
}

fn stop(process: Process, stopping: Stopping, now: OffsetDateTime) -> Action {
    if process != Process::Running {
        return Action::Remove;
    }
    let Some(terminated_at) = stopping.terminated_at else {
        return Action::Terminate;
    };
    let deadline = terminated_at.plus(stopping.grace);
    if stopping.killed {
        Action::Wait { until: None }
    } else if now >= deadline {
        Action::Kill
    } else {
        Action::Wait {
            until: Some(deadline),
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2031-05-04 12:00 UTC);

    fn fresh() -> Observed {
        Observed {
            process: Process::Absent,
            material: Material::Stale,
            stopping: None,
            quick_exits: 0,
            restart: Restart::Always,
        }
    }

    fn stopping(terminated_at: Option<OffsetDateTime>) -> Observed {
        Observed {
            process: Process::Running,
            stopping: Some(Stopping {
                grace: Duration::seconds(7),
                terminated_at,
                killed: false,
            }),
            ..fresh()
        }
    }

    #[test]
    fn a_new_pod_is_prepared_then_started_then_left_alone() {
        let mut pod = fresh();
        assert_eq!(decide(&pod, NOON), Action::Prepare);
        pod.material = Material::Ready;
        assert_eq!(decide(&pod, NOON), Action::Start);
        pod.process = Process::Running;
        assert_eq!(decide(&pod, NOON), Action::Wait { until: None });
    }

    #[test]
    fn a_missing_secret_is_looked_for_again() {
        let retry_at = NOON + Duration::seconds(3);
        let pod = Observed {
            material: Material::Missing { retry_at },
            ..fresh()
        };
        assert_eq!(
            decide(&pod, NOON),
            Action::Wait {
                until: Some(retry_at)
            }
        );
        assert_eq!(decide(&pod, retry_at), Action::Prepare);
    }

    #[test]
    fn an_ended_process_is_started_again_after_its_pause_with_fresh_files() {
        let pod = Observed {
            process: Process::Exited { at: NOON },
            quick_exits: 3,
            ..fresh()
        };
        let due = NOON + Duration::seconds(2);
        assert_eq!(decide(&pod, NOON), Action::Wait { until: Some(due) });
        assert_eq!(decide(&pod, due), Action::Prepare);
    }

    #[test]
    fn an_ended_process_that_must_not_restart_stays_ended() {
        let pod = Observed {
            process: Process::Exited { at: NOON },
            restart: Restart::Never,
            ..fresh()
        };
        assert_eq!(
            decide(&pod, NOON + Duration::hours(9)),
            Action::Wait { until: None }
        );
    }

    #[test]
    fn stopping_terminates_waits_kills_and_removes() {
        assert_eq!(decide(&stopping(None), NOON), Action::Terminate);
        let deadline = NOON + Duration::seconds(7);
        let mut pod = stopping(Some(NOON));
        assert_eq!(
            decide(&pod, NOON),
            Action::Wait {
                until: Some(deadline)
            }
        );
        assert_eq!(decide(&pod, deadline), Action::Kill);
        pod.process = Process::Exited { at: NOON };
        assert_eq!(decide(&pod, NOON), Action::Remove);
    }

    #[test]
    fn a_pod_that_never_started_is_removed_at_once() {
        let pod = Observed {
            process: Process::Absent,
            ..stopping(None)
        };
        assert_eq!(decide(&pod, NOON), Action::Remove);
    }

    #[test]
    fn pauses_grow_with_quick_ends_and_a_sound_run_forgets_them() {
        let pauses: Vec<_> = (0..8).map(restart_pause).collect();
        assert_eq!(pauses[0], RESTART_FIRST);
        assert_eq!(pauses[1], RESTART_FIRST);
        assert_eq!(pauses[2], Duration::seconds(1));
        assert_eq!(pauses[5], Duration::seconds(8));
        assert_eq!(pauses[7], RESTART_MAX);
        assert_eq!(restart_pause(u32::MAX), RESTART_MAX);
        assert_eq!(quick_exits(4, Duration::seconds(1)), 5);
        assert_eq!(quick_exits(4, SOUND_AFTER), 0);
    }
}
