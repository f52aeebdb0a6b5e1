//! Whose fault was it? A transaction that was cut is put down to a fault only on evidence.
//!
//! The rule: a transaction that began and was not acknowledged is by nature of a fault if it broke
//! off while a fault that ends connections by its nature (a pooler killed, a pod deleted by somebody
//! else, PostgreSQL restarted) was at work, or within [`AFTERMATH`] of its end. A kill is over at
//! once; a deleted pod is at work until it is gone; PostgreSQL until it answers again. Everything
//! else was cut by our own hand. Faults that end no connection (API errors, a dead daemon, a full
//! disk, a broken issuer, a clock that jumps) excuse nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::script::Fault;
use crate::cli::scene::load::Cut;
use crate::instants::Shift;

/// A client hears of a broken connection at once, and of a broken server connection when its pooler
/// does.
pub(super) const AFTERMATH: Duration = Duration::from_secs(2);

/// When a fault was at work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Which fault.
    pub(super) fault: Fault,
    /// From.
    pub(super) from: Instant,
    /// Until; `None` while it is.
    pub(super) until: Option<Instant>,
}

impl Window {
    /// Whether something at that instant may be its doing.
    pub(super) fn covers(&self, at: Instant) -> bool {
        at >= self.from && self.until.is_none_or(|until| at <= until.plus(AFTERMATH))
    }
}

/// Cut transactions by whose fault they were: by nature of a fault, and by our own hand.
pub(super) fn judge<'a>(cuts: &'a [Cut], windows: &[Window]) -> (Vec<&'a Cut>, Vec<&'a Cut>) {
    cuts.iter().partition(|cut| {
        windows
            .iter()
            .any(|window| window.fault.cuts() && window.covers(cut.at))
    })
}

/// Whether a client did not trust what it met.
pub(super) fn is_distrust(why: &str) -> bool {
    why.contains("certificate")
}

/// The faults during which somebody waited, until that instant and for so long.
pub(super) fn meanwhile(windows: &[Window], until: Instant, waited: Duration) -> BTreeSet<Fault> {
    let at_work = windows.iter().filter(|window| {
        let over = window.until.is_some_and(|over| over.plus(waited) < until);
        window.from <= until && !over
    });
    at_work.map(|window| window.fault).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distrust_is_what_a_client_says_of_a_certificate() {
        assert!(is_distrust("invalid peer certificate: UnknownIssuer"));
        assert!(!is_distrust("connection refused"));
    }

    #[test]
    fn only_a_fault_that_cuts_and_only_while_it_does_is_an_excuse() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let cut = |seconds| Cut {
            at: at(seconds),
            row: None,
            why: "closed".to_owned(),
        };
        let window = |fault, from, until| Window {
            fault,
            from: at(from),
            until: Some(at(until)),
        };
        let windows = [
            window(Fault::PoolerKilled, 10, 10),
            window(Fault::DaemonKilled, 20, 30),
        ];
        let cuts = [cut(9), cut(11), cut(13), cut(25)];
        let (nature, ours) = judge(&cuts, &windows);
        assert_eq!(nature, [&cuts[1]]);
        assert_eq!(ours, [&cuts[0], &cuts[2], &cuts[3]]);
        let meanwhile = |until, waited| {
            let faults = meanwhile(&windows, at(until), Duration::from_secs(waited));
            faults.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(meanwhile(15, 4), []);
        assert_eq!(meanwhile(15, 6), [Fault::PoolerKilled]);
        assert_eq!(meanwhile(32, 3), [Fault::DaemonKilled]);
    }
}
