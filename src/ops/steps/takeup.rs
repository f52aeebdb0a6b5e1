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

use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use tokio::time::{sleep, timeout};

use super::pods::address;
use super::verdict::{Expected, Seen, Verdict, judge};
use super::{Bench, Leaf, Side, StepError};
use crate::api::annotations::FILES_ASKED_AT;
use crate::api::{PgBouncer, SslMode};
use crate::causes::chain;
use crate::names::Alias;
use crate::ops::journal::NoReload;
use crate::pgbouncer::console::{Console, ConsoleError};
use crate::pgbouncer::ini::{Marker, Section};
use crate::pgbouncer::reload::{self, BETWEEN_RELOADS, ReloadError};
use crate::pgbouncer::session::{SessionError, Target};
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
/// Bound of one look from outside.
const LOOK: Duration = Duration::from_secs(5);
/// Parameters that are read at the start and that the platform does not set.
const STARTUP_ONLY: [&str; 2] = ["listen_port", "so_reuseport"];

const _: () = assert!(PAUSE.as_secs() < BOUND.as_secs() / 4);

/// Whom a reload is for, and what it should come to.
struct Scene<'a> {
    pod: &'a Pod,
    address: SocketAddr,
    bouncer: PgBouncer,
    admin: String,
    expected: Expected,
    side: Side,
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

impl Bench<'_> {
    /// Reloads until that side is in force, or the bound passes.
    pub(super) async fn take_up(
        &self,
        pod: &Pod,
        console: &mut Console,
        side: Side,
    ) -> Result<(), StepError> {
        let scene = self.scene(pod, console, side).await?;
        let reloading = Box::pin(self.until_in_force(&scene, console));
        if let Ok(done) = timeout(BOUND, reloading).await {
            return done;
        }
        // Whatever was going on then: no transaction shall wait for us.
        self.release(pod).await?;
        Err(StepError::NotTakenUp {
            name: pod.name_any(),
            missing: self.waiting.word().unwrap_or_default(),
        })
    }

    /// What the reload should come to.
    async fn scene<'a>(
        &self,
        pod: &'a Pod,
        console: &Console,
        side: Side,
    ) -> Result<Scene<'a>, StepError> {
        let name = pod.name_any();
        let trouble = |source| StepError::console(format!("pod {name}"), source);
        let (bouncer, inputs) = self.inputs(side).await?;
        let config = console.config().await.map_err(trouble)?;
        let no_address = || StepError::NoAddress(self.beside(&name));
        let address = address(&bouncer, pod).ok_or_else(no_address)?;
        let admin = self.around(&bouncer).await?.admin;
        let (state, former) = (self.state(side), self.state(Side::Former));
        let changes_auth = self.plan.former.auth_type != self.plan.target.auth_type;
        Ok(Scene {
            pod,
            address,
            admin: admin.map(|admin| admin.username).unwrap_or_default(),
            expected: Expected {
                leaf: self.wanted_leaf(side).await?,
                words: Words::of_ini(inputs.ini()),
                mode: state.ssl_mode.unwrap_or(SslMode::Disable),
                before: Words::of_config(&config),
                served_tls: former.serves_tls(),
                marker: inputs.marker(),
                marked: Marker::in_config(&config),
            },
            served: self.look(&format!("pod {name}"), address).await?,
            bouncer,
            side,
            logs_in: changes_auth || (side == Side::Target && self.plan.is_canary(&name)),
        })
    }

    /// PgBouncer loads what it should not (a leaf out of its lifetime), and turns TLS off over what
    /// it does not know. The configuration has been checked by [`crate::blueprint::Inputs`], and the
    /// material when it was published. What only the program itself could tell (does OpenSSL take
    /// these ciphers, may its user read the key) shows after the reload.
    pub(super) async fn preflight(
        &self,
        name: &str,
        console: &Console,
        side: Side,
    ) -> Result<(), StepError> {
        let config = console.config().await;
        let trouble = |source| StepError::console(format!("pod {name}"), source);
        let config = config.map_err(trouble)?;
        let (_, inputs) = self.inputs(side).await?;
        let unknown = stance::unknown(inputs.ini(), &config);
        if !unknown.is_empty() && side == Side::Target {
            return Err(StepError::UnknownParameters {
                name: name.to_owned(),
                parameters: unknown.join(", "),
            });
        }
        let differs = |key: &&str| {
            let wanted = inputs.ini().get(Section::Pgbouncer, key);
            wanted.is_some_and(|wanted| config.get(*key).is_some_and(|runs| runs != wanted))
        };
        if STARTUP_ONLY.iter().any(differs) {
            let why = NoReload::StartupOnly;
            return Err(StepError::NoReload {
                name: name.to_owned(),
                why,
            });
        }
        let secret = self.state(side).secret_name(self.name(), Alias::Server);
        if let (Some(secret), Side::Target) = (secret, side) {
            let live = self.live().await?;
            let published = self
                .materials
                .published(&live, Alias::Server, &secret)
                .await?;
            let now = self.clock.now();
            if published
                .is_some_and(|held| now < held.facts.not_before || held.facts.not_after <= now)
            {
                return Err(StepError::OutOfLifetime(self.beside(secret)));
            }
        }
        Ok(())
    }

    /// Reloads, looks, waits; until the look is as it should be, or is an alarm.
    async fn until_in_force(
        &self,
        scene: &Scene<'_>,
        console: &mut Console,
    ) -> Result<(), StepError> {
        let name = scene.pod.name_any();
        let pause = self
            .plan
            .drain
            .quiesce
            .to_std()
            .unwrap_or_default()
            .min(PAUSE);
        let mut brought = Brought::default();
        loop {
            self.ask_for_files(scene.pod).await?;
            sleep(FILES).await;
            match reload::reload(console, pause).await {
                Ok(means) => tracing::debug!(pod = %name, ?means, "reloaded"),
                Err(error) => outlive(&name, error)?,
            }
            let verdict = match self.verdict(scene, console, &mut brought).await {
                // What cannot be seen now may be seen next time.
                Err(error) if error.retry() == Retry::Backoff => Verdict::NotYet(chain(&error)),
                other => other?,
            };
            match verdict {
                Verdict::InForce => return Ok(()),
                // Going back there is nothing to go back to: it has to be reached.
                Verdict::Spoilt(why) if scene.side == Side::Target => {
                    return Err(StepError::Spoilt { name, why });
                }
                Verdict::NotYet(word) | Verdict::Spoilt(word) => {
                    self.waiting.wait_for(format!("pod {name} to show {word}"));
                }
            }
            sleep(BETWEEN_RELOADS).await;
        }
    }

    async fn verdict(
        &self,
        scene: &Scene<'_>,
        console: &Console,
        brought: &mut Brought,
    ) -> Result<Verdict, StepError> {
        let name = format!("pod {}", scene.pod.name_any());
        let trouble = |source| StepError::console(name.clone(), source);
        let config = console.config().await.map_err(trouble)?;
        let (words, marker) = (Words::of_config(&config), Marker::in_config(&config));
        let leaf = self.look(&name, scene.address).await?;
        let expected = &scene.expected;
        let is_loaded = marker.as_ref() == Some(&expected.marker);
        let is_new = leaf == expected.leaf && scene.served != expected.leaf;
        brought.read += u32::from(words == expected.words && is_loaded);
        brought.unread += u32::from(is_new && !is_loaded);
        let login = |source| StepError::Login {
            name: name.clone(),
            source: Box::new(source),
        };
        let (at, user) = (scene.address, scene.admin.as_str());
        let plaintext = match leaf {
            Leaf::Plaintext => Door::Open,
            Leaf::Of(_) | Leaf::Unknown => {
                stance::without_tls(at, user, LOOK).await.map_err(login)?
            }
        };
        let without_certificate = match (leaf, self.anonymous(scene).await?) {
            (Leaf::Of(_) | Leaf::Unknown, Some(tls)) if leaf == scene.expected.leaf => {
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
        match judge(&scene.expected, &seen) {
            Verdict::InForce if scene.logs_in => self.login_verdict(scene).await,
            verdict @ (Verdict::InForce | Verdict::NotYet(_) | Verdict::Spoilt(_)) => Ok(verdict),
        }
    }

    /// A login on a new connection: shows that users and trust in clients have come too.
    async fn login_verdict(&self, scene: &Scene<'_>) -> Result<Verdict, StepError> {
        let target: Target = self.console(&scene.bouncer, scene.pod).await?;
        match Console::connect(&target).await {
            Ok(console) => {
                console.close().await;
                Ok(Verdict::InForce)
            }
            Err(error) => Ok(Verdict::NotYet(format!("a login: {error}"))),
        }
    }

    /// TLS as a client has it that shows no certificate.
    async fn anonymous(&self, scene: &Scene<'_>) -> Result<Option<ClientTls>, StepError> {
        let Some(secret) = self
            .state(scene.side)
            .secret_name(self.name(), Alias::Server)
        else {
            return Ok(None);
        };
        let secret: Option<Secret> = self.cluster.get(&self.beside(secret)).await?;
        let data = secret.and_then(|secret| secret.data).unwrap_or_default();
        let Some(bundle) = data.get("ca.crt") else {
            return Ok(None);
        };
        let address = scene.address;
        ClientTls::verify_full(&self.service_host(), &bundle.0, None)
            .map(Some)
            .map_err(|source| StepError::Tls { address, source })
    }

    /// Makes the kubelet bring the volumes of a pod into step, and of the one that comes next.
    async fn ask_for_files(&self, pod: &Pod) -> Result<(), StepError> {
        let now = self.now_ms();
        let name = pod.name_any();
        self.annotate(pod, FILES_ASKED_AT, &now.to_string()).await?;
        let mut later = self
            .plan
            .pods
            .iter()
            .skip_while(|planned| planned.name != name);
        if let Some(next) = later.nth(1)
            && let Some(next) = self.pod(&next.name).await?
        {
            self.annotate(&next, FILES_ASKED_AT, &now.to_string())
                .await?;
        }
        Ok(())
    }
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
