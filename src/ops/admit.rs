//! Which request of a PgBouncer may begin
//! (docs/kubedb-compatibility.md, "Requests and their order").
//!
//! One at a time; of several that wait, those of the same type but for the newest are skipped, and
//! among the survivors the oldest goes first. Requests that wait for somebody's approval are not
//! ours to start.

use std::borrow::Borrow;
use std::cmp::Reverse;

use time::OffsetDateTime;

use super::view::Topic;
use crate::api::common::{Condition, ConditionStatus, instant};
use crate::api::opsrequest::{ApplyPolicy, PgBouncerOpsRequest, RequestPhase, RequestType};
use crate::api::{PgBouncer, Phase};
use kube::ResourceExt;

/// What becomes of a request that has not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It begins.
    Begin,
    /// It waits.
    Hold(Hold),
    /// It never begins, because a newer one of its type asks for the same.
    Skip {
        /// Name of the newer one.
        by: String,
        /// When that was created.
        created: Option<OffsetDateTime>,
    },
    /// There is no such PgBouncer.
    NoDatabase,
}

/// What a request waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Another request is being carried out.
    Busy {
        /// Its name.
        with: String,
    },
    /// An older one goes first.
    Behind {
        /// Its name.
        of: String,
    },
    /// The PgBouncer is still in the hand of a request that ends, or is gone.
    InHand,
    /// The PgBouncer is not Ready.
    NotReady,
    /// Somebody has to approve it.
    Approval,
}

/// Decides about `request`. `all` are the requests of the same namespace, itself among them.
pub fn admit<R: Borrow<PgBouncerOpsRequest>>(
    request: &PgBouncerOpsRequest,
    all: &[R],
    database: Option<&PgBouncer>,
) -> Admission {
    if phase(request) == Some(RequestPhase::WaitingForApproval) {
        return Admission::Hold(Hold::Approval);
    }
    let Some(database) = database else {
        return Admission::NoDatabase;
    };
    // Whoever comes too late must not take back what a newer request of its type has done or is doing.
    match Queue::of_same(request, all).place(request) {
        Place::Superseded { by, created } => Admission::Skip { by, created },
        Place::Behind(hold) => Admission::Hold(hold),
        Place::First if waits_for(request, Some(database)) => Admission::Hold(Hold::NotReady),
        Place::First => Admission::Begin,
    }
}

/// Whether `request` waits until that PgBouncer is Ready.
pub fn waits_for(request: &PgBouncerOpsRequest, database: Option<&PgBouncer>) -> bool {
    let phase_of = |database: &PgBouncer| database.status.as_ref().and_then(|status| status.phase);
    let is_ready = |database| phase_of(database) == Some(Phase::Ready);
    request.spec.apply == ApplyPolicy::IfReady && !database.is_none_or(is_ready)
}

/// Where a request stands among the others of its PgBouncer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A newer one of its type asks for the same.
    Superseded {
        /// Name of the newer one.
        by: String,
        /// When that was created.
        created: Option<OffsetDateTime>,
    },
    /// Another one goes first.
    Behind(Hold),
    /// No other goes first.
    First,
}

/// What matters of the requests of one PgBouncer, so that each of them finds its place without going
/// through all of them.
#[derive(Clone, Debug, Default)]
pub struct Queue<'a> {
    /// Two that run: one may be the request that asks.
    running: [Option<&'a str>; 2],
    types: Vec<(RequestType, Newest<'a>)>,
}

/// The newest requests of one type.
#[derive(Clone, Copy, Debug, Default)]
struct Newest<'a> {
    successful: Option<Mark<'a>>,
    running: Option<Mark<'a>>,
    waiting: Option<Mark<'a>>,
}

/// The age of a request; the newer is the greater. Of two from the same second the lexicographically
/// smaller name counts as the newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mark<'a> {
    created: Option<OffsetDateTime>,
    name: Reverse<&'a str>,
}

impl<'a> Mark<'a> {
    fn of(request: &'a PgBouncerOpsRequest) -> Self {
        Self {
            created: created(request),
            name: Reverse(name(request)),
        }
    }
}

impl<'a> Queue<'a> {
    /// Of the requests of one PgBouncer.
    pub fn of<R: Borrow<PgBouncerOpsRequest>>(all: &'a [R]) -> Self {
        Self::gathered(all.iter().map(Borrow::borrow))
    }

    /// Of those among `all` that are for the same PgBouncer as `request`.
    pub fn of_same<R: Borrow<PgBouncerOpsRequest>>(
        request: &PgBouncerOpsRequest,
        all: &'a [R],
    ) -> Self {
        let is_same = |other: &&PgBouncerOpsRequest| {
            other.spec.database_ref.name == request.spec.database_ref.name
                && other.metadata.namespace == request.metadata.namespace
        };
        Self::gathered(all.iter().map(Borrow::borrow).filter(is_same))
    }

    fn gathered(all: impl Iterator<Item = &'a PgBouncerOpsRequest>) -> Self {
        let mut queue = Self::default();
        for request in all {
            let type_ = request.spec.type_;
            let found = queue.types.iter().position(|(known, _)| *known == type_);
            let index = found.unwrap_or_else(|| {
                queue.types.push((type_, Newest::default()));
                queue.types.len() - 1
            });
            let newest = &mut queue.types[index].1;
            let seat = match phase(request) {
                Some(RequestPhase::Successful) => &mut newest.successful,
                Some(RequestPhase::Progressing) => {
                    let [first, second] = &mut queue.running;
                    let free = if first.is_none() { first } else { second };
                    free.get_or_insert(name(request));
                    &mut newest.running
                }
                _ if is_waiting(request) => &mut newest.waiting,
                _ => continue,
            };
            *seat = (*seat).max(Some(Mark::of(request)));
        }
        queue
    }

    /// Where `request`, which may be among them, stands.
    pub fn place(&self, request: &PgBouncerOpsRequest) -> Place {
        let (own, type_) = (Mark::of(request), request.spec.type_);
        if let Some(newer) = self.superseding(own, type_) {
            return Place::Superseded {
                by: newer.name.0.to_owned(),
                created: newer.created,
            };
        }
        self.behind(own, type_).map_or(Place::First, Place::Behind)
    }

    /// The newest request that makes one pointless: it is newer, and it waits, runs or is done. One that
    /// is done was created in an earlier second than whatever came after it, so names do not count
    /// there. Requests of type Reconfigure add up, and skipping one would lose its part.
    fn superseding(&self, own: Mark<'_>, type_: RequestType) -> Option<Mark<'a>> {
        if type_ == RequestType::Reconfigure {
            return None;
        }
        let (_, newest) = self.types.iter().find(|(known, _)| *known == type_)?;
        let done = newest.successful.filter(|done| done.created > own.created);
        let others = [newest.running, newest.waiting];
        let others = others.into_iter().flatten().filter(|other| *other > own);
        done.into_iter().chain(others).max()
    }

    /// The request that runs, or goes first: of each type only the newest that waits is not skipped.
    fn behind(&self, own: Mark<'_>, type_: RequestType) -> Option<Hold> {
        let mut running = self.running.iter().flatten();
        if let Some(other) = running.find(|other| **other != own.name.0) {
            let with = (*other).to_owned();
            return Some(Hold::Busy { with });
        }
        let others = self.types.iter().filter(|(known, _)| *known != type_);
        let older = others.filter_map(|(_, newest)| newest.waiting);
        let oldest = older.filter(|older| *older < own).min()?;
        Some(Hold::Behind {
            of: oldest.name.0.to_owned(),
        })
    }
}

/// The condition of a skipped request.
pub fn skipped(
    request: &PgBouncerOpsRequest,
    by: &str,
    created: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> Condition {
    let namespace = request.namespace().unwrap_or_default();
    let message = format!(
        "skipped as {namespace}/{by} is the most updated PgBouncerOpsRequest of type {} at {}",
        request.spec.type_.as_str(),
        created.map_or_else(String::new, crate::api::common::rfc3339_seconds),
    );
    let skipped = Topic::Skipped;
    let (type_, reason) = (skipped.as_str(), skipped.reason());
    Condition::new(type_, ConditionStatus::True, reason, message, now)
}

/// Phase of a request, if anybody has looked at it.
pub fn phase(request: &PgBouncerOpsRequest) -> Option<RequestPhase> {
    request.status.as_ref().and_then(|status| status.phase)
}

/// When a request was created.
pub fn created(request: &PgBouncerOpsRequest) -> Option<OffsetDateTime> {
    let time = request.metadata.creation_timestamp.as_ref();
    time.and_then(instant)
}

fn name(request: &PgBouncerOpsRequest) -> &str {
    request.metadata.name.as_deref().unwrap_or_default()
}

fn is_waiting(request: &PgBouncerOpsRequest) -> bool {
    let begun = !matches!(
        phase(request),
        None | Some(RequestPhase::Pending | RequestPhase::Approved)
    );
    !begun && request.metadata.deletion_timestamp.is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use time::macros::datetime;

    use super::*;

    fn request(name: &str, type_: &str, minute: u8, phase: Option<&str>) -> PgBouncerOpsRequest {
        let mut request = json!({
            "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PgBouncerOpsRequest",
            "metadata": {
                "name": name, "namespace": "shop",
                "creationTimestamp": format!("2031-05-06T07:{minute:02}:00Z"),
            },
            "spec": { "databaseRef": { "name": "billing" }, "type": type_, "tls": {} },
        });
        if let Some(phase) = phase {
            request["status"] = json!({ "phase": phase });
        }
        serde_json::from_value(request).unwrap()
    }

    /// What keeps `request` waiting, if that is another request.
    fn held_by_another(request: &PgBouncerOpsRequest, all: &[PgBouncerOpsRequest]) -> Option<Hold> {
        match Queue::of_same(request, all).place(request) {
            Place::Behind(hold) => Some(hold),
            Place::Superseded { .. } | Place::First => None,
        }
    }

    fn database(phase: &str) -> PgBouncer {
        serde_json::from_value(json!({
            "apiVersion": "kubedb.com/v1", "kind": "PgBouncer",
            "metadata": { "name": "billing", "namespace": "shop" },
            "spec": {
                "version": "1.18.0",
                "database": { "databaseName": "l", "databaseRef": { "name": "p", "namespace": "s" } },
            },
            "status": { "phase": phase },
        }))
        .unwrap()
    }

    fn tls(name: &str, minute: u8) -> PgBouncerOpsRequest {
        request(name, "ReconfigureTLS", minute, None)
    }

    fn decide(request: &PgBouncerOpsRequest, rivals: &[PgBouncerOpsRequest]) -> Admission {
        let mut all = rivals.to_vec();
        all.push(request.clone());
        admit(request, &all, Some(&database("Ready")))
    }

    #[test]
    fn what_another_request_holds_up_is_known_without_its_pgbouncer() {
        let running = request("first", "Restart", 9, Some("Progressing"));
        let (old, new) = (tls("a", 1), tls("b", 2));
        let all = [running.clone(), old.clone(), new.clone()];
        assert!(matches!(
            held_by_another(&new, &all),
            Some(Hold::Busy { .. })
        ));
        // The older one is not held up: it is skipped.
        assert_eq!(held_by_another(&old, &all), None);
        assert_eq!(held_by_another(&new, &[old.clone(), new.clone()]), None);
        let mut elsewhere = running;
        elsewhere.metadata.namespace = Some("bank".to_owned());
        assert_eq!(held_by_another(&new, &[elsewhere, old, new.clone()]), None);
    }

    #[test]
    fn nothing_begins_while_another_request_of_the_pgbouncer_is_progressing() {
        let running = request("first", "Restart", 9, Some("Progressing"));
        let held = decide(&tls("second", 3), std::slice::from_ref(&running));
        let with = "first".to_owned();
        assert_eq!(held, Admission::Hold(Hold::Busy { with }));
        let mut elsewhere = running;
        elsewhere.spec.database_ref.name = "other".to_owned();
        assert_eq!(decide(&tls("second", 3), &[elsewhere]), Admission::Begin);
    }

    #[test]
    fn of_two_that_wait_with_the_same_type_the_older_is_skipped() {
        let (old, new) = (tls("a", 1), tls("b", 2));
        let Admission::Skip { by, created } = decide(&old, std::slice::from_ref(&new)) else {
            panic!("not skipped")
        };
        assert_eq!(
            (by.as_str(), created),
            ("b", Some(datetime!(2031-05-06 07:02 UTC)))
        );
        assert_eq!(decide(&new, std::slice::from_ref(&old)), Admission::Begin);
        let condition = skipped(&old, &by, created, datetime!(2031-05-06 08:00 UTC));
        assert_eq!(
            condition.message,
            "skipped as shop/b is the most updated PgBouncerOpsRequest of type ReconfigureTLS at \
             2031-05-06T07:02:00Z"
        );
    }

    #[test]
    fn an_older_request_does_not_take_back_what_a_newer_one_of_its_type_does_or_did() {
        let late = tls("late", 1);
        for phase in ["Progressing", "Successful"] {
            let all = [
                late.clone(),
                request("first", "ReconfigureTLS", 2, Some(phase)),
            ];
            let admission = admit(&late, &all, Some(&database("Ready")));
            assert!(matches!(admission, Admission::Skip { ref by, .. } if by == "first"));
        }
        let all = [
            late.clone(),
            request("first", "ReconfigureTLS", 2, Some("Failed")),
        ];
        assert_eq!(
            admit(&late, &all, Some(&database("Ready"))),
            Admission::Begin
        );
        let all = [
            late.clone(),
            request("first", "ReconfigureTLS", 1, Some("Successful")),
        ];
        assert_eq!(
            admit(&late, &all, Some(&database("Ready"))),
            Admission::Begin
        );
    }

    #[test]
    fn of_two_from_the_same_second_the_smaller_name_is_the_newer() {
        assert!(matches!(
            decide(&tls("b", 1), &[tls("a", 1)]),
            Admission::Skip { .. }
        ));
        assert_eq!(decide(&tls("a", 1), &[tls("b", 1)]), Admission::Begin);
    }

    #[test]
    fn across_types_the_oldest_survivor_goes_first() {
        let restart = request("r", "Restart", 1, None);
        let held = decide(&tls("t", 2), std::slice::from_ref(&restart));
        assert_eq!(held, Admission::Hold(Hold::Behind { of: "r".to_owned() }));
        assert_eq!(decide(&restart, &[tls("t", 2)]), Admission::Begin);
        // An older restart that will be skipped does not hold anybody up.
        let later = request("s", "Restart", 3, None);
        assert_eq!(decide(&tls("t", 2), &[restart, later]), Admission::Begin);
    }

    #[test]
    fn if_ready_waits_for_ready_and_always_does_not() {
        let mut waiting = tls("t", 1);
        let critical = database("Critical");
        let all = [waiting.clone()];
        let held = admit(&waiting, &all, Some(&critical));
        assert_eq!(held, Admission::Hold(Hold::NotReady));
        waiting.spec.apply = ApplyPolicy::Always;
        assert_eq!(admit(&waiting, &all, Some(&critical)), Admission::Begin);
    }

    #[test]
    fn what_waits_for_approval_is_left_alone_until_it_is_approved() {
        let asked = request("t", "ReconfigureTLS", 1, Some("WaitingForApproval"));
        assert_eq!(decide(&asked, &[]), Admission::Hold(Hold::Approval));
        let approved = request("t", "ReconfigureTLS", 1, Some("Approved"));
        assert_eq!(decide(&approved, &[]), Admission::Begin);
    }

    // === the places, by the rules as they are written ===

    fn is_newer(one: &PgBouncerOpsRequest, other: &PgBouncerOpsRequest) -> bool {
        Mark::of(one) > Mark::of(other)
    }

    /// The place of a request, by going through all pairs.
    fn place_by_pairs(request: &PgBouncerOpsRequest, all: &[PgBouncerOpsRequest]) -> Place {
        let others = || all.iter().filter(|other| name(other) != name(request));
        let same = || others().filter(|other| other.spec.type_ == request.spec.type_);
        let replaces = |other: &&PgBouncerOpsRequest| match phase(other) {
            Some(RequestPhase::Successful) => created(other) > created(request),
            Some(RequestPhase::Progressing) => is_newer(other, request),
            _ => is_waiting(other) && is_newer(other, request),
        };
        let newest = same().filter(replaces).max_by_key(|other| Mark::of(other));
        if let Some(newer) = newest.filter(|_| request.spec.type_ != RequestType::Reconfigure) {
            let (by, created) = (newer.name_any(), created(newer));
            return Place::Superseded { by, created };
        }
        let mut running = others().filter(|other| phase(other) == Some(RequestPhase::Progressing));
        if let Some(other) = running.next() {
            let with = other.name_any();
            return Place::Behind(Hold::Busy { with });
        }
        let waiting = || others().filter(|other| is_waiting(other));
        let survives = |other: &&PgBouncerOpsRequest| {
            !waiting().any(|third| third.spec.type_ == other.spec.type_ && is_newer(third, other))
        };
        let older = waiting()
            .filter(|other| other.spec.type_ != request.spec.type_ && is_newer(request, other));
        let oldest = older.filter(survives).min_by_key(|other| Mark::of(other));
        oldest.map_or(Place::First, |oldest| {
            let of = oldest.name_any();
            Place::Behind(Hold::Behind { of })
        })
    }

    proptest! {
        #[test]
        fn every_request_has_the_place_that_all_pairs_give_it(
            all in proptest::collection::vec((0_usize..4, 0_u8..4, 0_usize..9), 1..12),
        ) {
            let types = ["Restart", "ReconfigureTLS", "Reconfigure", "UpdateVersion"];
            let phases = [
                None, Some("Pending"), Some("Approved"), Some("Progressing"), Some("Successful"),
                Some("Failed"), Some("Skipped"), Some("WaitingForApproval"), Some("Denied"),
            ];
            let all: Vec<_> = all
                .into_iter()
                .enumerate()
                .map(|(n, (type_, minute, phase))| {
                    request(&format!("r{n:02}"), types[type_], minute, phases[phase])
                })
                .collect();
            let queue = Queue::of(&all);
            for one in &all {
                prop_assert_eq!(queue.place(one), place_by_pairs(one, &all));
            }
        }
    }

    #[test]
    fn a_request_for_a_missing_pgbouncer_is_told_so() {
        let lost = tls("t", 1);
        let none: [PgBouncerOpsRequest; 0] = [];
        assert_eq!(admit(&lost, &none, None), Admission::NoDatabase);
    }
}
