//! Reload or restart: decided once, when the plan is made, and said in words.
//!
//! A reload suffices where running pods find everything that changes in files they have mounted, and
//! where a handshake or a login can show that they have taken it up. The version is the one that the
//! PgBouncer asks for; the step asks each pod again, because only the pod knows what runs in it.

use serde::{Deserialize, Serialize};

use crate::names::Alias;
use crate::ops::request::{Change, Pools, Refusal, Strategy};
use crate::pgbouncer::Version;
use crate::pgbouncer::reload::{Means, means};

/// How a change reaches the pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// By new processes, drained.
    #[default]
    Restart,
    /// By the running ones, which read their files again.
    Reload,
}

/// The way, and why where the strategy left a choice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// How the change reaches the pods.
    pub way: Way,
    /// A sentence for people.
    pub why: Option<String>,
}

/// What is known of the pods, as far as a reload depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// What running pods cannot take up from files, in words.
    pub beyond: Vec<String>,
    /// The version that the PgBouncer asks for.
    pub version: Version,
    /// Whether connections to PostgreSQL may use TLS.
    pub server_tls: bool,
    /// What is pooled.
    pub pools: Pools,
}

/// Chooses the way for `change`. `reach` is an error text where it could not be told.
pub fn choose(
    strategy: Strategy,
    change: &Change,
    reach: &Result<Reach, String>,
) -> Result<Choice, Refusal> {
    let restarts = matches!(change, Change::Restart | Change::NoOp);
    if restarts || strategy == Strategy::RollingRestart {
        return Ok(Choice::default());
    }
    match (obstacle(change, reach), strategy) {
        (None, _) => Ok(Choice {
            way: Way::Reload,
            why: Some(praise(reach)),
        }),
        (Some(why), Strategy::Reload) => Err(Refusal::Reload(why)),
        (Some(why), Strategy::Auto | Strategy::RollingRestart) => Ok(Choice {
            way: Way::Restart,
            why: Some(format!("a reload does not suffice: {why}")),
        }),
    }
}

/// Why a reload does not suffice; `None` if it does.
fn obstacle(change: &Change, reach: &Result<Reach, String>) -> Option<String> {
    let reach = match reach {
        Ok(reach) => reach,
        Err(error) => return Some(format!("what the pods are made from is not known: {error}")),
    };
    if !reach.beyond.is_empty() {
        return Some(reach.beyond.join(", "));
    }
    let issued = change.aliases_to_issue();
    if !issued.is_empty() && !issued.contains(&Alias::Server) {
        return Some(
            "only the trust in clients changes, and no handshake shows that it is in force"
                .to_owned(),
        );
    }
    match how(reach) {
        Means::Plain | Means::Paused => None,
        Means::Unsafe => Some(format!(
            "PgBouncer {} with TLS towards PostgreSQL can crash at a reload, and in pool_mode \
             session it cannot be paused for it (no such restriction from 1.26.1 on, or with \
             server_tls_sslmode=disable)",
            reach.version
        )),
    }
}

fn praise(reach: &Result<Reach, String>) -> String {
    let paused = reach
        .as_ref()
        .is_ok_and(|reach| how(reach) == Means::Paused);
    let mut text = "only files change, and the poolers read them again while they run".to_owned();
    if paused {
        text.push_str(
            "; new transactions wait for a moment meanwhile, because connections to PostgreSQL may \
             use TLS",
        );
    }
    text
}

fn how(reach: &Reach) -> Means {
    means(
        reach.version,
        reach.server_tls,
        reach.pools == Pools::Sessions,
    )
}

/// Whether connections to PostgreSQL may use TLS, by what the configuration says of
/// `server_tls_sslmode`; the default has changed.
pub fn server_tls(version: Version, said: Option<&str>) -> bool {
    const PREFERS_FROM: Version = Version::new(1, 20, 0);
    match said {
        Some(mode) => !mode.eq_ignore_ascii_case("disable"),
        None => version >= PREFERS_FROM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::request::Modes;

    const OLD: Version = Version::new(1, 18, 0);
    const CRASHING: Version = Version::new(1, 24, 1);

    fn reach(version: Version, pools: Pools) -> Reach {
        Reach {
            beyond: Vec::new(),
            version,
            server_tls: server_tls(version, None),
            pools,
        }
    }

    fn rotate() -> Change {
        Change::Rotate {
            modes: Modes::default(),
        }
    }

    #[test]
    fn auto_reloads_where_that_suffices_and_says_so() {
        let choice = choose(Strategy::Auto, &rotate(), &Ok(reach(OLD, Pools::Sessions))).unwrap();
        assert_eq!(choice.way, Way::Reload);
        let why = choice.why.unwrap();
        assert!(
            why.contains("only files change") && !why.contains("wait"),
            "{why}"
        );
        let tls = Ok(reach(CRASHING, Pools::Transactions));
        let choice = choose(Strategy::Auto, &rotate(), &tls).unwrap();
        assert!(choice.why.unwrap().contains("wait for a moment"));
    }

    #[test]
    fn where_no_reload_is_safe_auto_restarts_and_reload_is_refused() {
        let unsafe_here = Ok(reach(CRASHING, Pools::Sessions));
        let choice = choose(Strategy::Auto, &rotate(), &unsafe_here).unwrap();
        assert_eq!(choice.way, Way::Restart);
        assert!(choice.why.unwrap().contains("1.24.1"));
        let refusal = choose(Strategy::Reload, &rotate(), &unsafe_here).unwrap_err();
        let text = refusal.to_string();
        for part in [
            "1.24.1",
            "server_tls_sslmode=disable",
            "RollingRestart or Auto",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn what_is_beyond_files_needs_new_processes() {
        let mut new_volume = reach(OLD, Pools::Transactions);
        new_volume
            .beyond
            .push("the pods get volume keys".to_owned());
        let choice = choose(Strategy::Auto, &rotate(), &Ok(new_volume)).unwrap();
        assert_eq!(choice.way, Way::Restart);
        assert!(choice.why.unwrap().contains("volume keys"));
        let unknown = Err("AppBinding shop/p is not there".to_owned());
        let choice = choose(Strategy::Auto, &rotate(), &unknown).unwrap();
        assert!(choice.why.unwrap().contains("shop/p"));
    }

    #[test]
    fn trust_alone_cannot_be_proved_by_a_reload() {
        let client = serde_json::from_value(serde_json::json!({ "alias": "client" })).unwrap();
        let change = Change::UpdateCertificates {
            certificates: vec![client],
            modes: Modes::default(),
        };
        let fine = Ok(reach(OLD, Pools::Transactions));
        let choice = choose(Strategy::Auto, &change, &fine).unwrap();
        assert_eq!(choice.way, Way::Restart);
    }

    #[test]
    fn a_rolling_restart_and_a_restart_ask_no_questions() {
        let fine = Ok(reach(OLD, Pools::Transactions));
        for (strategy, change) in [
            (Strategy::RollingRestart, rotate()),
            (Strategy::Reload, Change::Restart),
        ] {
            let choice = choose(strategy, &change, &fine).unwrap();
            assert_eq!(choice, Choice::default());
        }
    }

    #[test]
    fn tls_towards_postgresql_is_the_default_since_1_20() {
        assert!(!server_tls(OLD, None) && server_tls(OLD, Some("prefer")));
        assert!(server_tls(CRASHING, None) && !server_tls(CRASHING, Some("disable")));
    }
}
