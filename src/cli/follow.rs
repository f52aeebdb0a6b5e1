//! Following an object until it is where it should be, and telling what happens on the way.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::output::Progress;
use crate::api::common::Condition;
use crate::api::{PgBouncerOpsRequest, RequestPhase};
use crate::instants::Shift;
use crate::names::ObjectRef;

/// Watches the object until `done` says so of it, and returns it as it was then. `None` is an
/// object that is not there.
pub(super) async fn until<K>(
    client: &Client,
    at: &ObjectRef,
    bound: Duration,
    mut done: impl FnMut(Option<&K>) -> bool,
) -> anyhow::Result<Option<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let api: Api<K> = Api::namespaced(client.clone(), &at.namespace);
    let mut states = pin!(watcher::watch_object(api, &at.name));
    let deadline = Instant::now().plus(bound);
    loop {
        let state = timeout_at(deadline, states.next())
            .await
            .map_err(|_| anyhow::anyhow!("waited {} s for {} {at}", bound.as_secs(), K::kind(&())))?
            .ok_or_else(|| anyhow::anyhow!("the watch of {} {at} ended", K::kind(&())))?;
        match state {
            Ok(object) if done(object.as_ref()) => return Ok(object),
            Ok(_) => {}
            // The watch is taken up again by itself; the bound ends a wait that is in vain.
            Err(error) => tracing::debug!(%error, object = %at, "watch interrupted"),
        }
    }
}

/// Follows a request to its end and shows each of its conditions once.
pub(super) async fn request(
    client: &Client,
    at: &ObjectRef,
    bound: Duration,
    progress: &Progress,
) -> anyhow::Result<PgBouncerOpsRequest> {
    let mut told = Told::default();
    let ended = until(
        client,
        at,
        bound,
        |request: Option<&PgBouncerOpsRequest>| {
            let Some(request) = request else { return true };
            let status = request.status.clone().unwrap_or_default();
            for news in told.news(&status.conditions) {
                progress.now(&format!("{}: {news}", at.name));
            }
            status.phase.is_some_and(RequestPhase::is_terminal)
        },
    );
    ended
        .await?
        .ok_or_else(|| anyhow::anyhow!("request {at} was deleted before its end"))
}

/// What a request says about its end: the message of the condition that decided it.
pub(super) fn verdict(request: &PgBouncerOpsRequest) -> String {
    let status = request.status.clone().unwrap_or_default();
    let phase = status.phase.map_or("Pending", RequestPhase::as_str);
    let deciding = status
        .conditions
        .iter()
        .rev()
        .find(|condition| condition.type_ == phase || !condition.is_true())
        .or_else(|| status.conditions.last());
    match deciding.filter(|condition| !condition.message.is_empty()) {
        Some(condition) => format!("{phase}: {}", condition.message),
        None => phase.to_owned(),
    }
}

/// Which conditions have been told already.
#[derive(Default)]
struct Told(Vec<Condition>);

impl Told {
    fn news(&mut self, conditions: &[Condition]) -> Vec<String> {
        let fresh = conditions.iter().filter(|now| !self.0.contains(now));
        let news = fresh.map(|condition| {
            if condition.message.is_empty() {
                condition.type_.clone()
            } else {
                condition.message.clone()
            }
        });
        let news = news.collect();
        self.0 = conditions.to_vec();
        news
    }
}
