//! Having a running pooler take up what is published, and seeing that it has.
//!
//! ```text
//!  files asked for ─► RELOAD ─► a new connection shows ─► in force
//!        ▲        (paused where  │            │
//!        │ 2 s     that is safer)▼            ▼ TLS off, settings at their defaults
//!        └────────────────── not yet       spoilt
//! ```
//!
//! Nobody can look into the pod's files from here: the console has no such command. So the level that
//! is waited for is what a new connection shows after a reload; [`super::verdict`] judges it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use tokio::time::{sleep, timeout};

use super::drain::resume;
use super::goal::Recipe;
use super::pods::{annotate, pod};
use super::proof::{LOOK, Spot, console, look, spot, wanted_leaf};
use super::verdict::{Expected, Seen, Verdict, judge};
use super::{Bench, Leaf, Side, StepError};
use crate::api::SslMode;
use crate::api::annotations::FILES_ASKED_AT;
use crate::causes::chain;
use crate::names::Alias;
use crate::ops::journal::NoReload;
use crate::pgbouncer::console::{Console, ConsoleError};
use crate::pgbouncer::ini::{Marker, Section};
use crate::pgbouncer::reload::{self, BETWEEN_RELOADS, ReloadError};
use crate::pgbouncer::session::SessionError;
use crate::pgbouncer::stance::{self, Door, Words};
use crate::pgbouncer::tls::ClientTls;
use crate::retry::Retry;

/// How long a pod may take to take up what is published. A kubelet that does not react to a change
/// of the pod brings the volume into step after up to 90 s.
const BOUND: Duration = Duration::from_secs(120);
/// How long open transactions are waited for where a reload needs a pause: everybody else waits too.
const PAUSE: Duration = Duration::from_secs(10);
/// From asking for the files to the first reload. A kubelet needs 200 ms at the least; a reload before
/// that would only cost [`BETWEEN_RELOADS`].
const FILES: Duration = Duration::from_millis(300);
/// Parameters that are read at the start and that the platform does not set.
const STARTUP_ONLY: [&str; 2] = ["listen_port", "so_reuseport"];

const _: () = assert!(PAUSE.as_secs() < BOUND.as_secs() / 4);

/// A reload: of which pod, and what it should come to.
struct Reload<'a> {
    recipe: &'a Recipe,
    pod: &'a Pod,
    spot: Spot,
    /// The user that has logged in to the console.
    admin: &'a str,
    expected: Expected,
    /// What was served before the first reload.
    served: Leaf,
    /// Whether a login has to prove more than a handshake can.
    logs_in: bool,
}

/// What the reloads of a pod have brought so far.
#[derive(Default)]
struct Brought {
    /// How many have shown the new words and the new marker.
    read: u32,
    /// How many have brought the new leaf without the new configuration.
    unread: u32,
}

/// An open console of a pod, and the user that has logged in.
pub(super) struct Session {
    pub(super) console: Console,
    pub(super) admin: String,
}

/// Reloads until the recipe is in force, or the bound passes.
pub(super) async fn take_up(
    bench: &Bench<'_>,
    recipe: &Recipe,
    pod: &Pod,
    session: &mut Session,
) -> Result<(), StepError> {
    let Session { console, admin } = session;
    let reload = prepare(bench, recipe, pod, console, admin).await?;
    if let Ok(done) = timeout(BOUND, until_in_force(bench, &reload, console)).await {
        return done;
    }
    // Whatever was going on then: no transaction shall wait for us.
    resume(&bench.ground, pod).await?;
    Err(StepError::NotTakenUp {
        name: pod.name_any(),
        missing: bench.ground.waiting.word().unwrap_or_default(),
    })
}

/// What the reload should come to.
async fn prepare<'a>(
    bench: &Bench<'_>,
    recipe: &'a Recipe,
    pod: &'a Pod,
    console: &Console,
    admin: &'a str,
) -> Result<Reload<'a>, StepError> {
    let (name, goal) = (pod.name_any(), &recipe.goal);
    let trouble = |source| StepError::console(format!("pod {name}"), source);
    let config = console.config().await.map_err(trouble)?;
    let spot = spot(&bench.ground, &goal.bouncer, pod)?;
    let plan = bench.plan;
    let changes_auth = plan.former.auth_type != plan.target.auth_type;
    Ok(Reload {
        expected: Expected {
            leaf: wanted_leaf(bench, goal.side, &goal.bouncer).await?,
            words: Words::of_ini(recipe.inputs.ini()),
            mode: bench.state(goal.side).ssl_mode.unwrap_or(SslMode::Disable),
            before: Words::of_config(&config),
            served_tls: plan.former.serves_tls(),
            marker: recipe.inputs.marker(),
            marked: Marker::in_config(&config),
        },
        served: look(&bench.ground, &spot).await?,
        logs_in: changes_auth || (goal.side == Side::Target && plan.is_canary(&name)),
        recipe,
        pod,
        spot,
        admin,
    })
}

/// PgBouncer loads what it should not (a leaf out of its lifetime), and turns TLS off over what
/// it does not know. The configuration has been checked by [`crate::blueprint::Inputs`], and the
/// material when it was published. What only the program itself could tell (does OpenSSL take
/// these ciphers, may its user read the key) shows after the reload.
pub(super) async fn preflight(
    bench: &Bench<'_>,
    recipe: &Recipe,
    name: &str,
    console: &Console,
) -> Result<(), StepError> {
    let (ini, side) = (recipe.inputs.ini(), recipe.goal.side);
    let trouble = |source| StepError::console(format!("pod {name}"), source);
    let config = console.config().await.map_err(trouble)?;
    let unknown = stance::unknown(ini, &config);
    if !unknown.is_empty() && side == Side::Target {
        return Err(StepError::UnknownParameters {
            name: name.to_owned(),
            parameters: unknown.join(", "),
        });
    }
    let differs = |key: &&str| {
        let wanted = ini.get(Section::Pgbouncer, key);
        wanted.is_some_and(|wanted| config.get(*key).is_some_and(|runs| runs != wanted))
    };
    if STARTUP_ONLY.iter().any(differs) {
        let why = NoReload::StartupOnly;
        return Err(StepError::NoReload {
            name: name.to_owned(),
            why,
        });
    }
    let secret = bench.secret_name(side, Alias::Server);
    if let (Some(secret), Side::Target) = (secret, side) {
        let published = bench
            .materials
            .published(&recipe.goal.bouncer, Alias::Server, &secret)
            .await?;
        let now = bench.clock.now();
        if published.is_some_and(|held| now < held.facts.not_before || held.facts.not_after <= now)
        {
            return Err(StepError::OutOfLifetime(bench.ground.beside(secret)));
        }
    }
    Ok(())
}

/// Reloads, looks, waits; until the look is as it should be, or is an alarm.
async fn until_in_force(
    bench: &Bench<'_>,
    reload: &Reload<'_>,
    console: &mut Console,
) -> Result<(), StepError> {
    let name = reload.pod.name_any();
    let pause = bench.plan.drain.quiesce.to_std().unwrap_or_default();
    let pause = pause.min(PAUSE);
    let mut brought = Brought::default();
    loop {
        ask_for_files(bench, reload.pod).await?;
        sleep(FILES).await;
        match reload::again(console, pause).await {
            Ok(means) => tracing::debug!(pod = %name, ?means, "reloaded"),
            Err(error) => outlive(&name, error)?,
        }
        let verdict = match verdict(bench, reload, console, &mut brought).await {
            // What cannot be seen now may be seen next time.
            Err(error) if error.retry() == Retry::Backoff => Verdict::NotYet(chain(&error)),
            other => other?,
        };
        match verdict {
            Verdict::InForce => return Ok(()),
            // Going back there is nothing to go back to: it has to be reached.
            Verdict::Spoilt(why) if reload.recipe.goal.side == Side::Target => {
                return Err(StepError::Spoilt { name, why });
            }
            Verdict::NotYet(word) | Verdict::Spoilt(word) => {
                let waiting = bench.ground.waiting;
                waiting.wait_for(format!("pod {name} to show {word}"));
            }
        }
        sleep(BETWEEN_RELOADS).await;
    }
}

async fn verdict(
    bench: &Bench<'_>,
    reload: &Reload<'_>,
    console: &Console,
    brought: &mut Brought,
) -> Result<Verdict, StepError> {
    let name = &reload.spot.name;
    let trouble = |source| StepError::console(name.clone(), source);
    let config = console.config().await.map_err(trouble)?;
    let (words, marker) = (Words::of_config(&config), Marker::in_config(&config));
    let leaf = look(&bench.ground, &reload.spot).await?;
    let expected = &reload.expected;
    let is_loaded = marker.as_ref() == Some(&expected.marker);
    let is_new = leaf == expected.leaf && reload.served != expected.leaf;
    brought.read += u32::from(words == expected.words && is_loaded);
    brought.unread += u32::from(is_new && !is_loaded);
    let login = |source| StepError::Login {
        name: name.clone(),
        source: Box::new(source),
    };
    let (at, user) = (reload.spot.address, reload.admin);
    let plaintext = match leaf {
        Leaf::Plaintext => Door::Open,
        Leaf::Of(_) | Leaf::Unknown => stance::without_tls(at, user, LOOK).await.map_err(login)?,
    };
    let without_certificate = match (leaf, anonymous(bench, reload).await?) {
        (Leaf::Of(_) | Leaf::Unknown, Some(tls)) if leaf == expected.leaf => {
            let door = stance::without_certificate(at, user, tls, LOOK).await;
            Some(door.map_err(login)?)
        }
        _ => None,
    };
    let seen = Seen {
        leaf,
        words,
        plaintext,
        without_certificate,
        marker,
        read: brought.read,
        unread: brought.unread,
    };
    match judge(expected, &seen) {
        Verdict::InForce if reload.logs_in => login_verdict(bench, reload).await,
        verdict @ (Verdict::InForce | Verdict::NotYet(_) | Verdict::Spoilt(_)) => Ok(verdict),
    }
}

/// A login on a new connection: shows that users and trust in clients have come too.
async fn login_verdict(bench: &Bench<'_>, reload: &Reload<'_>) -> Result<Verdict, StepError> {
    let target = console(&bench.ground, &reload.recipe.goal.bouncer, reload.pod).await?;
    match Console::connect(&target).await {
        Ok(console) => {
            console.close().await;
            Ok(Verdict::InForce)
        }
        Err(error) => Ok(Verdict::NotYet(format!("a login: {error}"))),
    }
}

/// TLS as a client has it that shows no certificate.
async fn anonymous(bench: &Bench<'_>, reload: &Reload<'_>) -> Result<Option<ClientTls>, StepError> {
    let (ground, side) = (&bench.ground, reload.recipe.goal.side);
    let Some(secret) = bench.secret_name(side, Alias::Server) else {
        return Ok(None);
    };
    let secret: Option<Secret> = ground.cluster.get(&ground.beside(secret)).await?;
    let data = secret.and_then(|secret| secret.data).unwrap_or_default();
    let Some(bundle) = data.get("ca.crt") else {
        return Ok(None);
    };
    let address = reload.spot.address;
    ClientTls::verify_full(&ground.service_host(), &bundle.0, None)
        .map(Some)
        .map_err(|source| StepError::Tls { address, source })
}

/// Makes the kubelet bring the volumes of a pod into step, and of the one that comes next.
async fn ask_for_files(bench: &Bench<'_>, asked: &Pod) -> Result<(), StepError> {
    let ground = &bench.ground;
    let now = now_ms(bench).to_string();
    let name = asked.name_any();
    annotate(ground, asked, FILES_ASKED_AT, &now).await?;
    let pods = bench.plan.pods.iter();
    let mut later = pods.skip_while(|planned| planned.name != name);
    if let Some(next) = later.nth(1)
        && let Some(next) = pod(ground, &next.name).await?
    {
        annotate(ground, &next, FILES_ASKED_AT, &now).await?;
    }
    Ok(())
}

/// The present instant, in milliseconds.
pub(super) fn now_ms(bench: &Bench<'_>) -> i128 {
    bench.clock.now().unix_timestamp_nanos() / 1_000_000
}

/// What is wrong with a reload that is no reason to give up; the look decides.
fn outlive(name: &str, error: ReloadError) -> Result<(), StepError> {
    let at = || format!("pod {name}");
    match error {
        ReloadError::Unsafe { version } => Err(StepError::NoReload {
            name: name.to_owned(),
            why: NoReload::Unsafe(version.major, version.minor, version.patch),
        }),
        // From 1.25 on a reload says that it has not loaded everything.
        ReloadError::Console(
            error @ (ConsoleError::PauseTimedOut { .. }
            | ConsoleError::Session(SessionError::Command { .. })),
        ) => {
            let error = &error as &(dyn std::error::Error + 'static);
            tracing::warn!(pod = name, error, "not reloaded");
            Ok(())
        }
        ReloadError::Console(source) | ReloadError::LeftPaused(source) => {
            Err(StepError::console(at(), source))
        }
    }
}
