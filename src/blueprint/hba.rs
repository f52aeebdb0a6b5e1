//! The HBA file that is written in place of `auth_type=cert`.

use std::fmt::Write;

use super::names;

/// The addresses of either family.
const EVERYWHERE: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// Returns the lines of the file; PgBouncer uses the first that matches.
///
/// A CA signs for many, and PgBouncer only asks whether a certificate names the user. So a certificate
/// alone opens neither the admin console nor anything for the name that the client certificates of every
/// PgBouncer bear: both need a password as well, which belongs to this PgBouncer alone. PgBouncer compares
/// that name without regard to case, and the users of this file with regard to it. Every spelling is
/// therefore listed.
pub fn text() -> String {
    let mut text = "\
# Written by Bouncert in place of auth_type=cert. The console, and the user whose name is in the client
# certificates of every PgBouncer, need a certificate and a password; other users a certificate.
"
    .to_owned();
    let name = names::ADMIN_USER;
    let users: Vec<String> = spellings(name)
        .iter()
        .map(|user| format!("\"{user}\""))
        .collect();
    let users = users.join(",");
    let mut line = |databases: &str, users: &str, method: &str| {
        for address in EVERYWHERE {
            let _to_a_string = writeln!(text, "hostssl {databases} {users} {address} {method}");
        }
    };
    line(&format!("\"{name}\""), "all", "scram-sha-256");
    line("all", &users, "scram-sha-256");
    line("all", "all", "cert");
    text
}

/// All ways to write an ASCII name in upper and lower case, the given one first.
fn spellings(name: &str) -> Vec<String> {
    name.chars().fold(vec![String::new()], |all, letter| {
        let mut cases = vec![letter.to_ascii_lowercase(), letter.to_ascii_uppercase()];
        cases.dedup();
        let longer = |case: &char| {
            let case = *case;
            all.iter()
                .map(move |begin| format!("{begin}{case}"))
                .collect::<Vec<_>>()
        };
        cases.iter().flat_map(longer).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_spelling_of_the_shared_name_needs_a_password() {
        let all: BTreeSet<String> = spellings("pgbouncer").into_iter().collect();
        assert_eq!(all.len(), 1 << 9);
        assert!(
            all.iter()
                .all(|name| name.eq_ignore_ascii_case("pgbouncer"))
        );
        assert_eq!(spellings("a-1"), ["a-1", "A-1"]);
        let text = text();
        let of = |method: &str| {
            let lines = text.lines().filter(|line| line.ends_with(method));
            lines.map(str::len).collect::<Vec<_>>()
        };
        assert_eq!((of("scram-sha-256").len(), of("cert").len()), (4, 2));
        for name in ["\"pgbouncer\"", "\"PgBouncer\"", "\"PGBOUNCER\""] {
            let listed = text.lines().filter(|line| {
                let mut fields = line.split(' ').skip(1);
                fields.next() == Some("all")
                    && fields
                        .next()
                        .is_some_and(|users| users.split(',').any(|user| user == name))
            });
            assert_eq!(listed.count(), 2, "{name}");
        }
    }
}
