//! A value in the configuration by which the console tells which configuration was loaded.
//!
//! It has to be free text that `SHOW CONFIG` shows, that a reload changes, and that does nothing, on
//! every version. Measured on 1.18.0, 1.24.1 and 1.26.1, `stats_users` is: a list of users who may
//! read the console. The marker is longer than any name of a PostgreSQL role, and no userlist takes
//! it, so it names no user. Settings of the user in that list stay. `syslog_ident` would rename the
//! program in its log where `syslog` is on; a line in `[databases]` would be a database that clients
//! and exporters see; users once named in `[users]` are kept until the program ends.

use std::collections::BTreeMap;

/// What every marker begins with.
const PREFIX: &str = "bouncert-loaded-";
/// What stands between users in the list.
const SEPARATORS: [char; 4] = [',', ' ', '\t', '\n'];

/// Marks a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker(String);

impl Marker {
    /// The parameter that holds it.
    pub(super) const PARAMETER: &str = "stats_users";

    /// The marker of a configuration with that digest.
    pub fn of(digest: &str) -> Self {
        Self(format!("{PREFIX}{digest}"))
    }

    /// The marker that a console shows; `None` of a configuration without one, or of one that was
    /// not loaded to its end.
    pub fn in_config(config: &BTreeMap<String, String>) -> Option<Self> {
        let users = config.get(Self::PARAMETER)?;
        let last = users.rsplit(SEPARATORS).find(|name| !name.is_empty())?;
        Self::is(last).then(|| Self(last.to_owned()))
    }

    /// Whether a name could be taken for a marker.
    pub fn is(name: &str) -> bool {
        name.starts_with(PREFIX)
    }

    /// The list with the marker at its end.
    pub(super) fn beside(&self, users: Option<&str>) -> String {
        match users {
            None | Some("") => self.0.clone(),
            Some(users) => format!("{users}, {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_stands_behind_the_users_and_is_found_there() {
        let marker = Marker::of("0a1b");
        for users in [None, Some(""), Some("scraper"), Some("scraper,  ann")] {
            let shown = BTreeMap::from([("stats_users".to_owned(), marker.beside(users))]);
            assert_eq!(Marker::in_config(&shown), Some(marker.clone()), "{users:?}");
        }
        let without = BTreeMap::from([("stats_users".to_owned(), "scraper".to_owned())]);
        assert_eq!(Marker::in_config(&without), None);
        assert_eq!(Marker::in_config(&BTreeMap::new()), None);
    }

    #[test]
    fn no_role_of_postgresql_can_have_its_name() {
        let digest = "a".repeat(64);
        assert!(Marker::of(&digest).0.len() > 63);
    }
}
