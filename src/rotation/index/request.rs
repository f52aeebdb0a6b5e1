//! What requests tell: whether one is live, and what became of those that rotation made.

use std::cmp::Reverse;

use kube::ResourceExt;
use time::OffsetDateTime;

use super::Index;
use crate::api::annotations::{ATTEMPT, CREATED_BY_LABEL, CREATED_BY_ROTATION};
use crate::api::common::{Condition, instant, parse_rfc3339};
use crate::api::{PgBouncerOpsRequest, RequestPhase};
use crate::names::ObjectRef;
use crate::rotation::brake::Recent;
use crate::rotation::facts::History;

/// Name and UID of a request.
type Named = (ObjectRef, String);
/// Attempts that are counted. The annotation can be written by whoever may create requests, and names
/// of requests are made from it.
const ATTEMPT_MAX: u32 = 10_000;

/// What is left of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RequestFacts {
    pub(super) bouncer: ObjectRef,
    uid: Box<str>,
    phase: Option<RequestPhase>,
    is_ours: bool,
    attempt: u32,
    created: Option<OffsetDateTime>,
    ended: Option<OffsetDateTime>,
}

impl Index {
    /// Names and UIDs of our own finished requests of a PgBouncer, newest first; successful and others.
    pub fn finished(&self, at: &ObjectRef) -> (Vec<Named>, Vec<Named>) {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for (name, facts) in self.ours(at) {
            let named = || (name.clone(), facts.uid.to_string());
            match facts.phase {
                Some(RequestPhase::Successful) => good.push(named()),
                Some(phase) if phase.is_terminal() => bad.push(named()),
                _ => {}
            }
        }
        (good, bad)
    }

    pub(super) fn live(&self, at: &ObjectRef) -> Option<String> {
        let of = self.requests_of.get(at)?.iter();
        let is_live = |facts: &&RequestFacts| !facts.phase.is_some_and(RequestPhase::is_terminal);
        let mut live = of.filter(|name| self.requests.get(name).as_ref().is_some_and(is_live));
        live.next().map(|name| name.name.clone())
    }

    pub(super) fn history(&self, at: &ObjectRef) -> History {
        let all = self.ours(at);
        let newest = all.first();
        let succeeded = self.requests_of.get(at).into_iter().flatten();
        let succeeded = succeeded
            .filter_map(|name| self.requests.get(name))
            .filter(|facts| facts.phase == Some(RequestPhase::Successful));
        let good = all
            .iter()
            .filter(|(_, facts)| facts.phase == Some(RequestPhase::Successful));
        let mut history = History {
            succeeded: Recent::of(good.filter_map(|(_, facts)| facts.created)),
            succeeded_at: succeeded.filter_map(|facts| facts.ended).max(),
            started_at: newest.and_then(|(_, facts)| facts.created),
            newest: newest.map(|(name, _)| name.name.clone()),
            finished: all
                .iter()
                .filter(|(_, facts)| facts.phase.is_some_and(RequestPhase::is_terminal))
                .map(|(name, _)| name.name.clone())
                .collect(),
            ..History::default()
        };
        if let Some((_, facts)) = newest
            && facts.phase == Some(RequestPhase::Failed)
        {
            history.failures = facts.attempt.max(1);
            history.failed_at = facts.ended.or(facts.created);
        }
        history
    }

    /// Our own requests of a PgBouncer, newest first.
    fn ours(&self, at: &ObjectRef) -> Vec<(&ObjectRef, &RequestFacts)> {
        let of = self.requests_of.get(at).into_iter().flatten();
        let mut ours: Vec<_> = of
            .filter_map(|name| Some((name, self.requests.get(name)?)))
            .filter(|(_, facts)| facts.is_ours)
            .collect();
        ours.sort_by_key(|(_, facts)| Reverse((facts.created, facts.attempt)));
        ours
    }
}

impl RequestFacts {
    pub(super) fn of(request: &PgBouncerOpsRequest) -> Self {
        let status = request.status.as_ref();
        let conditions = status
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default();
        let created_by = request.labels().get(CREATED_BY_LABEL);
        let attempt = request
            .annotations()
            .get(ATTEMPT)
            .and_then(|text| text.parse().ok())
            .map(|attempt: u32| attempt.min(ATTEMPT_MAX));
        let created = request.metadata.creation_timestamp.as_ref();
        let namespace = request.namespace().unwrap_or_default();
        let phase = status.and_then(|status| status.phase);
        Self {
            bouncer: ObjectRef::new(namespace, &request.spec.database_ref.name),
            uid: request.uid().unwrap_or_default().into(),
            phase,
            is_ours: created_by.is_some_and(|who| who == CREATED_BY_ROTATION),
            attempt: attempt.unwrap_or(1),
            created: created.and_then(instant),
            ended: ended(conditions).filter(|_| phase.is_some_and(RequestPhase::is_terminal)),
        }
    }
}

fn ended(conditions: &[Condition]) -> Option<OffsetDateTime> {
    let times = conditions.iter();
    times
        .filter_map(|condition| parse_rfc3339(&condition.last_transition_time))
        .max()
}
