//! The users and their secrets (`auth_file`).
//!
//! The file serves two purposes: it verifies clients, and it is what the pooler logs in to
//! PostgreSQL with. The forms differ in what they can do
//! (docs/pgbouncer-behaviour.md, "Stored secrets"):
//!
//! | stored | `auth_type=md5` | `auth_type=scram-sha-256` | PostgreSQL wants md5 | wants SCRAM |
//! |---|---|---|---|---|
//! | plaintext | yes | yes | yes | yes |
//! | md5 hash | yes | no | yes | no |
//! | SCRAM verifier | yes, as SCRAM | yes | no | until the pooler restarts |
//!
//! Only plaintext lets every user reach every PostgreSQL after a restart and through every change
//! of `auth_type`, and the file is a Secret, so [`Stored::choose`] stores plaintext for all users
//! that log in to PostgreSQL. A user of the admin console never does; under `auth_type=md5` it is
//! stored as a hash, as KubeDB does. A SCRAM verifier is never chosen: its salt would have to be
//! kept somewhere, or the file would change with each rendering.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use super::ini::{Marker, reader};
use crate::opaque::assert_opaque;
use crate::redacted::Redacted;

/// Longest password that PgBouncer reads from the file.
pub const PASSWORD_MAX: usize = 995;
/// Longest user name as it stands in the file, where a double quote takes two bytes. A longer one
/// ends the file: no user after it exists.
pub const USER_MAX: usize = 127;

/// What a user is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The admin console only.
    Console,
    /// Databases behind the pooler.
    Backend,
}

/// A user's secret as the file holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The password itself.
    Plain(Redacted<String>),
    /// `md5` and the hash of password and user name.
    Md5(Redacted<String>),
}

const _: () = assert_opaque::<UserlistError>();

/// Why a file cannot be written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UserlistError {
    /// A name that PgBouncer cannot read back. It is not told: it may be what belongs in another field.
    #[error(
        "the user name has {length} bytes: write a name of 1 to {USER_MAX} bytes (a double quote counts \
         twice) without control characters, that does not begin as the daemon's own markers do"
    )]
    BadUser {
        /// Its length in bytes.
        length: usize,
    },
    /// A secret that PgBouncer cannot read back.
    #[error(
        "the password has {length} bytes: write one of 1 to {PASSWORD_MAX} bytes without a line break"
    )]
    BadSecret {
        /// Its length in bytes.
        length: usize,
    },
    /// A file that would be read otherwise; a mistake of the writer.
    #[error("the userlist would be read otherwise than it was meant")]
    ReadBack,
}

/// The users, each once, in order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Userlist {
    users: BTreeMap<String, Stored>,
}

impl Stored {
    /// Chooses the form; `auth_type` is the one in force after all configuration is merged.
    pub fn choose(
        purpose: Purpose,
        auth_type: &str,
        user: &str,
        password: &Redacted<String>,
    ) -> Self {
        if purpose == Purpose::Console && auth_type.eq_ignore_ascii_case("md5") {
            Self::md5(user, password)
        } else {
            Self::Plain(password.clone())
        }
    }

    /// The md5 form.
    fn md5(user: &str, password: &Redacted<String>) -> Self {
        let hash = postgres_protocol::password::md5(password.expose().as_bytes(), user);
        Self::Md5(Redacted::new(hash))
    }

    /// The text in the file.
    pub const fn secret(&self) -> &Redacted<String> {
        match self {
            Self::Plain(secret) | Self::Md5(secret) => secret,
        }
    }
}

impl Userlist {
    /// Nobody.
    pub const fn new() -> Self {
        Self {
            users: BTreeMap::new(),
        }
    }

    /// Adds a user, or replaces its secret.
    pub fn insert(&mut self, user: &str, stored: Stored) -> Result<(), UserlistError> {
        let breaks = |text: &str| text.contains(['\n', '\r', '\0']);
        let length = user.len() + user.matches('"').count();
        let is_reserved = Marker::is(user);
        if user.is_empty() || length > USER_MAX || user.contains(char::is_control) || is_reserved {
            return Err(UserlistError::BadUser { length: user.len() });
        }
        let secret = stored.secret().expose();
        if secret.is_empty() || secret.len() > PASSWORD_MAX || breaks(secret) {
            return Err(UserlistError::BadSecret {
                length: secret.len(),
            });
        }
        self.users.insert(user.to_owned(), stored);
        Ok(())
    }

    /// Proves that the file holds what was meant, by a reader of PgBouncer's own grammar.
    pub fn read_back(&self) -> Result<(), UserlistError> {
        let read = reader::users(self.render().expose()).map_err(|_| UserlistError::ReadBack)?;
        let meant = self
            .users
            .iter()
            .map(|(user, stored)| (user, stored.secret().expose()));
        let same = read.iter().map(|(user, secret)| (user, secret)).eq(meant);
        if same {
            Ok(())
        } else {
            Err(UserlistError::ReadBack)
        }
    }

    /// The file.
    pub fn render(&self) -> Redacted<String> {
        let mut text = String::new();
        for (user, stored) in &self.users {
            for part in [user, stored.secret().expose()] {
                text.push('"');
                text.push_str(&part.replace('"', "\"\""));
                text.push_str("\" ");
            }
            text.pop();
            text.push('\n');
        }
        Redacted::new(text)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Console => "console",
            Self::Backend => "backend",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn password(text: &str) -> Redacted<String> {
        Redacted::new(text.to_owned())
    }

    #[test]
    fn only_a_console_user_under_md5_is_hashed() {
        let choose = |purpose, auth| Stored::choose(purpose, auth, "keeper", &password("s3cret"));
        assert!(matches!(choose(Purpose::Console, "md5"), Stored::Md5(_)));
        for (purpose, auth) in [
            (Purpose::Console, "scram-sha-256"),
            (Purpose::Console, "hba"),
            (Purpose::Backend, "md5"),
            (Purpose::Backend, "scram-sha-256"),
        ] {
            assert_eq!(choose(purpose, auth), Stored::Plain(password("s3cret")));
        }
    }

    #[test]
    fn hashes_are_those_of_postgresql() {
        // From PgBouncer's documentation: user admin, password 1234.
        let md5 = Stored::md5("admin", &password("1234"));
        assert_eq!(md5.secret().expose(), "md545f2603610af569b6155c45067268c6b");
    }

    #[test]
    fn quotes_are_doubled_and_read_back() {
        let mut list = Userlist::new();
        let odd = Stored::Plain(password("p\"w d"));
        list.insert("o\"hara", odd).unwrap();
        list.insert("keeper", Stored::md5("keeper", &password("x")))
            .unwrap();
        let text = list.render();
        assert!(text.expose().ends_with("\"o\"\"hara\" \"p\"\"w d\"\n"));
        assert_eq!(list.read_back(), Ok(()));
    }

    #[test]
    fn what_would_not_be_read_back_is_refused() {
        let mut list = Userlist::new();
        let trailing = Stored::Plain(password("secret\n"));
        assert!(list.insert("ann", trailing).is_err());
        let mut insert = |user: &str| list.insert(user, Stored::Plain(password("x")));
        for user in ["", "a\u{1b}[2J", "a\nb", "bouncert-loaded-0a1b"] {
            assert!(insert(user).is_err(), "{user:?}");
        }
        assert!(insert(&"u".repeat(127)).is_ok());
        assert!(
            insert(&format!("{}\"", "u".repeat(126))).is_err(),
            "a quote takes two"
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(user in "[ -~]{1,20}", secret in "[ -~]{1,40}") {
            let mut list = Userlist::new();
            list.insert(&user, Stored::Plain(password(&secret))).unwrap();
            prop_assert_eq!(list.read_back(), Ok(()));
        }

        #[test]
        fn every_user_is_refused_or_read_back(
            users in proptest::collection::vec(
                ("([\"ü ;]|\\PC|[\\x00-\\x1f]){0,140}", "([\"ü ;]|\\PC|[\\x00-\\x1f]){0,30}"), 0..4),
        ) {
            let mut list = Userlist::new();
            for (user, secret) in users {
                let _refused = list.insert(&user, Stored::Plain(password(&secret)));
            }
            prop_assert_eq!(list.read_back(), Ok(()));
        }
    }
}
