//! The arguments of leader election; names and defaults are those of Kubernetes' own components.

use std::time::Duration;

use clap::{ArgAction, Args};

use super::args::duration;
use super::exit::{Exit, Failure};
use super::random_hex;
use crate::daemon::ElectionOptions;
use crate::lease::Timing;
use crate::names::ObjectRef;

/// How several daemons elect one.
#[derive(Args, Clone, Debug)]
pub struct LeaderArgs {
    /// Act only as the one that all daemons of this cluster elect; `false` where there is but one.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub leader_elect: bool,
    /// Namespace of the Lease; by default the daemon's own (`--namespace`).
    #[arg(long, value_name = "NAME")]
    pub leader_election_namespace: Option<String>,
    /// Name of the Lease.
    #[arg(long, value_name = "NAME", default_value = "bouncert")]
    pub leader_election_id: String,
    /// How long others leave alone a Lease that is not renewed; whole seconds.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pub leader_election_lease_duration: Duration,
    /// How long the leader tries to renew the Lease before it stops leading.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub leader_election_renew_deadline: Duration,
    /// How often the Lease is looked at or renewed.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub leader_election_retry_period: Duration,
}

impl LeaderArgs {
    /// What they stand for; `namespace` is the default one.
    pub(super) fn options(&self, namespace: &str) -> Result<Option<ElectionOptions>, Failure> {
        if !self.leader_elect {
            return Ok(None);
        }
        let timing = Timing::new(
            self.leader_election_lease_duration,
            self.leader_election_renew_deadline,
            self.leader_election_retry_period,
        );
        let timing = timing.map_err(|error| Failure::new(Exit::Usage, error))?;
        let own = self.leader_election_namespace.as_deref();
        let machine = rustix::system::uname();
        let machine = machine.nodename().to_string_lossy();
        Ok(Some(ElectionOptions {
            at: ObjectRef::new(own.unwrap_or(namespace), &self.leader_election_id),
            identity: format!("{machine}_{}", random_hex::<8>()?),
            timing,
        }))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        leader: LeaderArgs,
    }

    fn options(words: &[&str]) -> Result<Option<ElectionOptions>, Failure> {
        let words = ["x"].into_iter().chain(words.iter().copied());
        Line::try_parse_from(words).unwrap().leader.options("ops")
    }

    #[test]
    fn the_defaults_are_those_of_client_go() {
        let elects = options(&[]).ok().flatten().unwrap();
        assert_eq!(elects.timing, Timing::default());
        assert_eq!(elects.at, ObjectRef::new("ops", "bouncert"));
        let again = options(&["--leader-elect"]).ok().flatten().unwrap();
        assert_ne!(elects.identity, again.identity);
        assert!(options(&["--leader-elect=false"]).is_ok_and(|none| none.is_none()));
    }

    #[test]
    fn durations_that_do_not_fit_are_a_usage_error() {
        let refused = options(&["--leader-election-renew-deadline", "20s"]).unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
    }
}
