//! A pod that goes on running and reads its files again.
//!
//! ```text
//!  checked: leaf in its lifetime, parameters known to the program, none that needs a start
//!     │
//!     ▼            2 s                                  still missing
//!  files asked for ─► RELOAD ─► a new connection shows ─────────────────► again, until the bound
//!                  (paused where  │            │
//!                   that is safer) ▼            ▼ TLS off, settings at their defaults
//!                            in force: marked   fails at once; undoing publishes what was there
//! ```
//!
//! Nobody can look into the pod's files from here: the console has no such command. So the level that
//! is waited for is what a new connection shows after a reload. The pod stays in the Service, and
//! established sessions stay as they are.
//!
//! What has been proved is marked on the pod ([`crate::blueprint::loaded`]), and before the first
//! reload that nothing is; an act that was cut anywhere goes on from there. A pause that was left by one is lifted by the next, by undoing, and
//! when the daemon stops.

use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::pods::{Serving, address, is_labelled, is_ready};
use super::roll::is_shut_out;
use super::verdict::{Expected, Seen, Verdict, judge};
use super::{Bench, Leaf, Side, StepError};
use crate::api::annotations::{FILES_ASKED_AT, LOADED};
use crate::api::{PgBouncer, SslMode};
use crate::blueprint::loaded;
use crate::names::Alias;
use crate::ops::journal::{NoReload, Note};
use crate::ops::plan::{PlannedPod, Way};
use crate::ops::request::Strategy;
use crate::pgbouncer::console::{Console, ConsoleError};
use crate::pgbouncer::ini::Section;
use crate::pgbouncer::reload::{self, BETWEEN_RELOADS, ReloadError};
use crate::pgbouncer::session::Target;
use crate::pgbouncer::stance::{self, Door, Words};
use crate::pgbouncer::tls::ClientTls;

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
    /// Whether a login has to prove more than a handshake can.
    logs_in: bool,
}

impl Bench<'_> {
    /// Has a pod take up the target side.
    pub(super) async fn reload(&self, name: &str) -> Result<Note, StepError> {
        self.switch_holds().await?;
        let digest = self.wanted_digest(Side::Target).await?;
        let pod = self.pod(name).await?;
        let mut note = Note::default();
        match pod.filter(|pod| is_ready(pod) && loaded::digest_of(pod) != Some(&digest)) {
            Some(pod) => match Box::pin(self.reload_pod(&pod, &digest, Side::Target)).await {
                Ok(()) => {}
                Err(StepError::NoReload { why, .. })
                    if self.plan.settings.strategy == Strategy::Auto =>
                {
                    tracing::warn!(pod = name, %why, "restarted instead of reloaded");
                    note = Box::pin(self.restart_instead(name, Side::Target)).await?;
                    note.restarted = Some(why);
                }
                Err(error) => return Err(error),
            },
            // It is about to be made, or has been, or does not serve anybody; or it is done.
            None => note = Box::pin(self.replace(name, None, Side::Target)).await?,
        }
        if self.set().await?.replicas > self.plan.replicas {
            self.unsurge(Side::Target).await?;
        }
        Ok(note)
    }

    /// Has a pod serve what was there before; publishes that first.
    pub(super) async fn unreload(&self, name: &str) -> Result<(), StepError> {
        self.unpause(name).await?;
        self.publish_back().await?;
        let digest = self.wanted_digest(Side::Former).await?;
        match self.plan.pod(name) {
            Some(planned) => Box::pin(self.bring_back(planned, &digest)).await,
            None => Ok(()),
        }
    }

    /// Brings every pod back to the former side by reloads, those that do not serve first.
    pub(super) async fn converge_by_reload(&self) -> Result<(), StepError> {
        let digest = self.wanted_digest(Side::Former).await?;
        for planned in &self.plan.pods {
            Box::pin(self.bring_back(planned, &digest)).await?;
        }
        if self.set().await?.replicas > self.plan.replicas {
            self.unsurge(Side::Former).await?;
        }
        Ok(())
    }

    /// Lets transactions start again in a pod that a reload of ours may have left paused.
    pub(super) async fn unpause(&self, name: &str) -> Result<(), StepError> {
        if self.plan.choice.way != Way::Reload {
            return Ok(());
        }
        match self.pod(name).await? {
            Some(pod) => self.release(&pod).await,
            None => Ok(()),
        }
    }

    /// Writes down on the pod what it was seen to have loaded.
    pub(super) async fn mark(&self, pod: &Pod, digest: &str) -> Result<(), StepError> {
        self.annotate(pod, LOADED, &loaded::mark(pod, digest)).await
    }

    /// Whether what the pod's annotations say still holds: its process is the one that was there when
    /// the plan was made, or one that was proved since.
    pub(super) fn is_unmoved(&self, planned: &PlannedPod, pod: &Pod) -> bool {
        let same =
            pod.uid() == planned.uid && loaded::container_of(pod) == planned.container.as_deref();
        same || loaded::is_witnessed(pod)
    }

    /// Publishes the target again if that was taken back: an undo that was cut, or somebody else.
    async fn switch_holds(&self) -> Result<(), StepError> {
        let Some(secret) = self.plan.target.secret_name(self.name(), Alias::Server) else {
            return Ok(());
        };
        let live = self.live().await?;
        let published = self
            .materials
            .published(&live, Alias::Server, &secret)
            .await?;
        let revision = published.and_then(|published| published.revision);
        if revision == self.plan.target_revision(Alias::Server) {
            return Ok(());
        }
        self.switch().await
    }

    async fn bring_back(&self, planned: &PlannedPod, digest: &str) -> Result<(), StepError> {
        let name = &planned.name;
        let Some(pod) = self.pod(name).await?.filter(|pod| is_ready(pod)) else {
            return self.replace(name, None, Side::Former).await.map(drop);
        };
        let holds = loaded::digest_of(&pod) == Some(digest) && self.is_unmoved(planned, &pod);
        if !holds {
            match Box::pin(self.reload_pod(&pod, digest, Side::Former)).await {
                Ok(()) => {}
                // What was there before matters more than how it is brought back.
                Err(StepError::NoReload { why, .. }) => {
                    tracing::warn!(pod = %name, %why, "restarted to go back");
                    return self.restart_instead(name, Side::Former).await.map(drop);
                }
                Err(error) => return Err(error),
            }
        }
        if !is_labelled(&pod) {
            self.label(&pod, Serving::Yes).await?;
        }
        Ok(())
    }

    /// Restarts a pod that cannot be reloaded; a single one gets company.
    async fn restart_instead(&self, name: &str, side: Side) -> Result<Note, StepError> {
        if self.plan.replicas == 1 {
            self.surge(side).await?;
        }
        let uid = self.pod(name).await?.and_then(|pod| pod.uid());
        self.replace(name, uid.as_deref(), side).await
    }

    /// Reloads a pod until it shows what that side wants.
    async fn reload_pod(&self, pod: &Pod, digest: &str, side: Side) -> Result<(), StepError> {
        let name = pod.name_any();
        let target = self.console(&self.live().await?, pod).await?;
        let console = Console::connect(&target).await;
        let mut console = console.map_err(|error| no_console(&name, error))?;
        self.preflight(&name, &console, side).await?;
        self.keep_distance(pod).await;
        self.mark(pod, loaded::UNKNOWN).await?;
        let done = self.take_up(pod, &mut console, side).await;
        if let (Err(StepError::Spoilt { why, .. }), Side::Target) = (&done, side) {
            tracing::error!(pod = %name, why, "reload spoilt the pod; going back");
            Box::pin(self.save(pod, &mut console)).await;
        }
        done?;
        console.close().await;
        self.waiting.clear();
        self.mark(pod, digest).await?;
        tracing::info!(pod = %name, digest, "pod has reloaded and serves");
        Ok(())
    }

    /// Reloads of one pod keep their distance also when an earlier attempt made the last one.
    async fn keep_distance(&self, pod: &Pod) {
        if loaded::digest_of(pod) != Some(loaded::UNKNOWN) {
            return;
        }
        let asked = pod.annotations().get(FILES_ASKED_AT);
        let asked: Option<i128> = asked.and_then(|text| text.parse().ok());
        let since = self.now_ms() - asked.unwrap_or_default();
        let since = Duration::from_millis(u64::try_from(since).unwrap_or_default());
        sleep(BETWEEN_RELOADS.saturating_sub(since)).await;
    }

    fn now_ms(&self) -> i128 {
        self.clock.now().unix_timestamp_nanos() / 1_000_000
    }

    /// Puts back what was there before, through the console that is still open: who has read a
    /// broken file may let in nobody else, not even its administrator. Undoing does the same once
    /// more, with whatever means there are.
    async fn save(&self, pod: &Pod, console: &mut Console) {
        let saved = async {
            self.publish_back().await?;
            self.wanted_digest(Side::Former).await?;
            self.take_up(pod, console, Side::Former).await
        };
        if let Err(error) = saved.await {
            let error = &error as &(dyn std::error::Error + 'static);
            tracing::error!(pod = %pod.name_any(), error, "not put back yet");
        }
    }

    /// Reloads until that side is in force, or the bound passes.
    async fn take_up(&self, pod: &Pod, console: &mut Console, side: Side) -> Result<(), StepError> {
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
            },
            bouncer,
            side,
            logs_in: changes_auth || (side == Side::Target && self.plan.is_canary(&name)),
        })
    }

    /// PgBouncer loads what it should not (a leaf out of its lifetime), and turns TLS off over what
    /// it does not know. What the configuration says has been checked by [`crate::blueprint::Inputs`], and the
    /// material when it was published.
    async fn preflight(&self, name: &str, console: &Console, side: Side) -> Result<(), StepError> {
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
        if STARTUP_ONLY.iter().any(|key| differs(&key)) {
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
        let mut read = 0;
        loop {
            self.ask_for_files(scene.pod).await?;
            sleep(FILES).await;
            match reload::again(console, pause).await {
                Ok(means) => tracing::debug!(pod = %name, ?means, "reloaded"),
                Err(error) => self.outlive(&name, error)?,
            }
            match self.verdict(scene, console, &mut read).await? {
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

    /// What is wrong with a reload that is no reason to give up; the look decides.
    fn outlive(&self, name: &str, error: ReloadError) -> Result<(), StepError> {
        let at = || format!("pod {name}");
        match error {
            ReloadError::Unsafe { version } => Err(StepError::NoReload {
                name: name.to_owned(),
                why: NoReload::Unsafe(version.major, version.minor, version.patch),
            }),
            // From 1.25 on a reload says that it has not loaded everything.
            ReloadError::Console(
                error @ (ConsoleError::PauseTimedOut { .. }
                | ConsoleError::Session(crate::pgbouncer::session::SessionError::Command {
                    ..
                })),
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

    async fn verdict(
        &self,
        scene: &Scene<'_>,
        console: &Console,
        read: &mut u32,
    ) -> Result<Verdict, StepError> {
        let name = format!("pod {}", scene.pod.name_any());
        let trouble = |source| StepError::console(name.clone(), source);
        let config = console.config().await.map_err(trouble)?;
        let words = Words::of_config(&config);
        *read += u32::from(words == scene.expected.words);
        let leaf = self.look(&name, scene.address).await?;
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
            read: *read,
        };
        match judge(&scene.expected, &seen) {
            Verdict::InForce if scene.logs_in => self.login_verdict(scene).await,
            verdict => Ok(verdict),
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

    async fn annotate(&self, pod: &Pod, key: &str, value: &str) -> Result<(), StepError> {
        let patch = json!({ "metadata": { "uid": pod.uid(), "annotations": { key: value } } });
        let at = self.beside(pod.name_any());
        Ok(self.cluster.patch::<Pod>(&at, &patch).await.map(drop)?)
    }
}

fn no_console(name: &str, error: ConsoleError) -> StepError {
    if is_shut_out(&error) {
        return StepError::NoReload {
            name: name.to_owned(),
            why: NoReload::ShutOut,
        };
    }
    StepError::console(format!("pod {name}"), error)
}
