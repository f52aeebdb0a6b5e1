//! What to make of a pooler that was told to read its files again: a pure judgement.
//!
//! The answer to `RELOAD` proves nothing. In force is what a new connection shows; a file that has not
//! come yet is waited for; and what a broken file leaves behind (TLS off, settings back at their
//! defaults) is told from both at once, because clients may be let in that should not be.
//!
//! A leaf alone does not prove a reload: PgBouncer reads TLS files again also where it has loaded
//! nothing of its configuration. The configuration's last line is a [`Marker`], so a console that
//! shows it has loaded every line.

use super::Leaf;
use crate::api::SslMode;
use crate::pgbouncer::ini::Marker;
use crate::pgbouncer::stance::{Door, Words};

/// After so many reloads by which the configuration has come and TLS has not, it never will: all
/// volumes of a pod are brought into step together.
const REFUSALS_MAX: u32 = 3;

/// What there should be, and what was there before.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// What should be served.
    pub(super) leaf: Leaf,
    /// The configuration's words.
    pub(super) words: Words,
    /// Who should be let in.
    pub(super) mode: SslMode,
    /// The words before the first reload.
    pub(super) before: Words,
    /// Whether TLS was on before the change, by the specification.
    pub(super) served_tls: bool,
    /// The marker of the configuration.
    pub(super) marker: Marker,
    /// The marker before the first reload; `None` of a pod that an earlier daemon has made.
    pub(super) marked: Option<Marker>,
}

/// What a new connection and the console showed.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// What is served.
    pub(super) leaf: Leaf,
    /// What it was told.
    pub(super) words: Words,
    /// Clients without TLS.
    pub(super) plaintext: Door,
    /// Clients without a certificate; `None` where there is no TLS to try it with.
    pub(super) without_certificate: Option<Door>,
    /// The marker that the console shows.
    pub(super) marker: Option<Marker>,
    /// How many reloads have shown the new words, this one included.
    pub(super) read: u32,
    /// How many reloads have brought the new leaf without the new configuration, this one included.
    pub(super) unread: u32,
}

/// The judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The new is in force.
    InForce,
    /// Something has not come yet.
    NotYet(String),
    /// It is worse than before, or will never come.
    Spoilt(String),
}

/// Judges.
pub(super) fn judge(expected: &Expected, seen: &Seen) -> Verdict {
    let wants_tls = expected.leaf != Leaf::Plaintext;
    if seen.leaf == Leaf::Plaintext && wants_tls && expected.served_tls {
        return Verdict::Spoilt("TLS went off: its configuration does not load".to_owned());
    }
    if seen.marker.is_none() && expected.marked.is_some() && seen.words == expected.before {
        return Verdict::Spoilt(
            "its configuration does not load: a line before the last one is refused".to_owned(),
        );
    }
    let is_loaded = seen.marker.as_ref() == Some(&expected.marker);
    if !is_loaded && seen.unread >= REFUSALS_MAX {
        return Verdict::Spoilt(
            "it has read its new certificate and does not load its new configuration".to_owned(),
        );
    }
    if seen.words != expected.words {
        return if seen.words == expected.before {
            Verdict::NotYet("its volume to hold the new configuration".to_owned())
        } else {
            Verdict::Spoilt(format!(
                "its configuration does not load, and left {} in force",
                seen.words
            ))
        };
    }
    if !is_loaded {
        return Verdict::NotYet("its volume to hold the new configuration".to_owned());
    }
    let Some(missing) = missing(expected, seen) else {
        return Verdict::InForce;
    };
    if expected.words != expected.before && seen.read >= REFUSALS_MAX {
        return Verdict::Spoilt(format!(
            "it has read its new configuration and refuses its TLS settings: still no {missing}"
        ));
    }
    Verdict::NotYet(missing)
}

/// What a new connection does not show yet.
fn missing(expected: &Expected, seen: &Seen) -> Option<String> {
    if seen.leaf != expected.leaf {
        return Some(format!("{} instead of {}", expected.leaf, seen.leaf));
    }
    if !expected.mode.is_tls() {
        return None;
    }
    let verifies = matches!(expected.mode, SslMode::VerifyCa | SslMode::VerifyFull);
    let shut = |shut: bool| if shut { Door::Shut } else { Door::Open };
    if seen.plaintext != shut(verifies || expected.mode == SslMode::Require) {
        return Some(format!(
            "sslmode {} for clients without TLS",
            expected.mode.as_str()
        ));
    }
    if seen.without_certificate != Some(shut(verifies)) {
        return Some(format!(
            "sslmode {} for clients without a certificate",
            expected.mode.as_str()
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Fingerprint;
    use crate::pgbouncer::ini::Ini;

    fn words(mode: &str) -> Words {
        let text = format!(
            "[pgbouncer]\nclient_tls_sslmode = {mode}\nauth_type = scram-sha-256\n\
             pool_mode = transaction\n"
        );
        Words::of_ini(&Ini::parse(&text).unwrap())
    }

    fn leaf(n: u8) -> Leaf {
        Leaf::Of(Fingerprint::from_sha256([n; 32]))
    }

    fn expected(before: &str, mode: SslMode) -> Expected {
        Expected {
            leaf: leaf(2),
            words: words(mode.as_str()),
            mode,
            before: words(before),
            served_tls: before != "disable",
            marker: Marker::of("new"),
            marked: Some(Marker::of("old")),
        }
    }

    fn seen(leaf: Leaf, told: &str, plaintext: Door, without_certificate: Door) -> Seen {
        Seen {
            leaf,
            words: words(told),
            plaintext,
            without_certificate: Some(without_certificate),
            marker: Some(Marker::of("new")),
            read: 1,
            unread: 0,
        }
    }

    #[test]
    fn in_force_is_what_a_new_connection_shows() {
        let stricter = expected("require", SslMode::VerifyFull);
        let good = seen(leaf(2), "verify-full", Door::Shut, Door::Shut);
        assert_eq!(judge(&stricter, &good), Verdict::InForce);
        let told_only = seen(leaf(2), "verify-full", Door::Shut, Door::Open);
        assert!(matches!(judge(&stricter, &told_only), Verdict::NotYet(_)));
        let looser = expected("require", SslMode::Prefer);
        let open = seen(leaf(2), "allow", Door::Open, Door::Open);
        assert_eq!(judge(&looser, &open), Verdict::InForce);
    }

    #[test]
    fn files_that_have_not_come_are_waited_for() {
        let rotation = expected("require", SslMode::Require);
        let old = seen(leaf(1), "require", Door::Shut, Door::Open);
        let Verdict::NotYet(word) = judge(&rotation, &Seen { read: 90, ..old }) else {
            panic!("a kubelet may be slow")
        };
        assert!(word.contains("instead of"), "{word}");
        let stricter = expected("require", SslMode::VerifyFull);
        let old = seen(leaf(1), "require", Door::Shut, Door::Open);
        assert!(matches!(judge(&stricter, &old), Verdict::NotYet(_)));
    }

    #[test]
    fn tls_that_went_off_and_settings_at_their_defaults_are_an_alarm() {
        let rotation = expected("require", SslMode::Require);
        let off = Seen {
            without_certificate: None,
            ..seen(Leaf::Plaintext, "require", Door::Open, Door::Open)
        };
        assert!(matches!(judge(&rotation, &off), Verdict::Spoilt(_)));
        let added = expected("disable", SslMode::Require);
        let not_yet = Seen {
            words: words("disable"),
            ..off.clone()
        };
        assert!(matches!(judge(&added, &not_yet), Verdict::NotYet(_)));
        let defaults = Seen {
            words: Words::of_ini(&Ini::new()),
            ..off
        };
        let Verdict::Spoilt(why) = judge(&added, &defaults) else {
            panic!("settings that nobody asked for")
        };
        assert!(why.contains("pool_mode session"), "{why}");
    }

    #[test]
    fn tls_settings_that_are_read_and_never_set_up_are_refused() {
        let stricter = expected("require", SslMode::VerifyFull);
        let refused = seen(leaf(2), "verify-full", Door::Shut, Door::Open);
        let third = Seen {
            read: REFUSALS_MAX,
            ..refused
        };
        assert!(matches!(judge(&stricter, &third), Verdict::Spoilt(_)));
    }

    #[test]
    fn a_leaf_does_not_prove_that_the_configuration_was_loaded() {
        let rotation = expected("require", SslMode::Require);
        let good = seen(leaf(2), "require", Door::Shut, Door::Open);
        assert_eq!(judge(&rotation, &good), Verdict::InForce);
        let stays = Seen {
            marker: Some(Marker::of("old")),
            unread: 1,
            ..good.clone()
        };
        assert!(matches!(judge(&rotation, &stays), Verdict::NotYet(_)));
        let refused = Seen {
            unread: REFUSALS_MAX,
            ..stays
        };
        let Verdict::Spoilt(why) = judge(&rotation, &refused) else {
            panic!("a line before [pgbouncer] is refused")
        };
        assert!(why.contains("does not load its new configuration"), "{why}");
        let cut = Seen {
            marker: None,
            ..good.clone()
        };
        let Verdict::Spoilt(why) = judge(&rotation, &cut) else {
            panic!("a line within [pgbouncer] is refused")
        };
        assert!(why.contains("a line before the last one"), "{why}");
        // A pod that an earlier daemon has made shows no marker before its first reload.
        let upgraded = Expected {
            marked: None,
            ..rotation
        };
        assert!(matches!(judge(&upgraded, &cut), Verdict::NotYet(_)));
        assert_eq!(judge(&upgraded, &good), Verdict::InForce);
    }
}
