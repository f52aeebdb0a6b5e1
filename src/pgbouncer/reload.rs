//! Telling a pooler to read its files again, by the means that are safe for its version.
//!
//! With TLS towards PostgreSQL, a reload is not harmless everywhere
//! (docs/pgbouncer-behaviour.md, "Reload with TLS towards PostgreSQL"): from 1.24 to 1.26.0 a plain
//! one can end the process, and before 1.24 each one replaces all connections to PostgreSQL. A pause around the reload avoids both, and is not possible where
//! connections are held for whole sessions.
//!
//! A reload that was answered is no proof that new material is in force; only
//! [`super::probe::probe`] on a connection opened afterwards is. Leave at least [`BETWEEN_RELOADS`]
//! between two of them.

use std::time::Duration;

use thiserror::Error;

use super::Version;
use super::console::{Console, ConsoleError, PoolMode};
use super::drain::patience;

/// Reloads that follow each other faster can fail logins to PostgreSQL.
pub const BETWEEN_RELOADS: Duration = Duration::from_secs(2);

/// How to reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// `RELOAD`.
    Plain,
    /// `PAUSE`, `RELOAD`, `RESUME`.
    Paused,
    /// Not at all: restart the pod, drained.
    Unsafe,
}

/// Why nothing was reloaded, or not known to be.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// The console failed; the pooler is not paused.
    #[error(transparent)]
    Console(#[from] ConsoleError),
    /// No reload is safe here.
    #[error(
        "PgBouncer {version} with TLS towards PostgreSQL can crash at a reload, and in pool_mode \
         session it cannot be paused; restart it, use 1.26.1, or set server_tls_sslmode=disable"
    )]
    Unsafe {
        /// The running version.
        version: Version,
    },
    /// It was reloaded, and no transaction can start until it is resumed.
    #[error("the pooler could not be resumed after its reload")]
    LeftPaused(#[source] ConsoleError),
}

/// Chooses the means.
pub fn means(version: Version, server_tls: bool, holds_sessions: bool) -> Means {
    const CRASHES_FROM: Version = Version::new(1, 24, 0);
    const SOUND_FROM: Version = Version::new(1, 26, 1);
    if !server_tls || version >= SOUND_FROM {
        Means::Plain
    } else if !holds_sessions {
        Means::Paused
    } else if version >= CRASHES_FROM {
        Means::Unsafe
    } else {
        Means::Plain
    }
}

/// Reloads through a console that is there already, which goes on to work when the reload lets no
/// new client in. Version and settings are asked each time: the last reload may have changed them.
/// `pause` bounds how long open transactions are waited for where a pause is needed.
///
/// A caller that drops this future before it is done has to resume the pooler through a new console.
pub async fn reload(console: &mut Console, pause: Duration) -> Result<Means, ReloadError> {
    let version = console.version().await?;
    let config = console.config().await?;
    let value = |key: &str| config.get(key).map_or("", String::as_str);
    let server_tls = value("server_tls_sslmode") != "disable";
    let pools = console.pools().await?;
    // The setting counts too: a pool is made when its first client comes.
    let holds_sessions = PoolMode::parse(value("pool_mode")) == Some(PoolMode::Session)
        || pools.iter().any(|pool| pool.mode == PoolMode::Session);
    let means = means(version, server_tls, holds_sessions);
    match means {
        Means::Plain => console.reload().await?,
        Means::Paused => {
            let bound = pause.min(patience(console).await?);
            let mut paused = console.pause(bound).await;
            if matches!(paused, Err(ConsoleError::AlreadyPaused)) {
                // An earlier attempt of ours, of which nobody knows how far it came.
                console.resume().await?;
                paused = console.pause(bound).await;
            }
            paused?;
            let (reloaded, resumed) = console.reload_and_resume().await;
            resumed.map_err(ReloadError::LeftPaused)?;
            reloaded?;
        }
        Means::Unsafe => return Err(ReloadError::Unsafe { version }),
    }
    Ok(means)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_means_follow_version_and_server_tls() {
        let (old, crashing, sound) = (
            Version::new(1, 18, 0),
            Version::new(1, 24, 1),
            Version::new(1, 26, 1),
        );
        for version in [old, crashing, sound] {
            assert_eq!(means(version, false, true), Means::Plain);
        }
        assert_eq!(means(old, true, false), Means::Paused);
        assert_eq!(means(old, true, true), Means::Plain);
        assert_eq!(means(crashing, true, false), Means::Paused);
        assert_eq!(means(crashing, true, true), Means::Unsafe);
        assert_eq!(means(sound, true, true), Means::Plain);
    }
}
