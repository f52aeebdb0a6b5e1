//! What the writer accepts, every PgBouncer at hand loads, and reads as it was meant; what the second
//! reader says of a file, the program does.

use std::collections::BTreeMap;
use std::time::Duration;

use bouncert::fence::Fence;
use bouncert::pgbouncer::console::Console;
use bouncert::pgbouncer::ini::{self, ConnectString, Ini, Marker, Section, reader};
use bouncert::pgbouncer::login;
use bouncert::pgbouncer::session::{Row, Target};

use crate::support::{Pooler, eventually, free_port, own_address, pooler_directory, write_owned};
use crate::versions;

const BOUND: Duration = Duration::from_secs(10);

/// Texts that look like something else to one reader or another.
const STRANGE: [&str; 22] = [
    "sales 2026",
    "acme$prod",
    "bücher",
    "a;b",
    "#a",
    "a=b",
    "[x]",
    "%include /nowhere",
    "'",
    "it's",
    "''",
    "\"a\"",
    "a\tb",
    " a",
    "a ",
    "\\",
    "a\\'b",
    "*",
    "a,b",
    "\u{a0}a",
    "ﬁ\u{301}",
    "a  b",
];

fn target(pooler: &Pooler) -> Target {
    Target {
        address: pooler.address,
        user: "anybody".to_owned(),
        password: None,
        tls: None,
        timeout: BOUND,
        fence: Fence::default(),
    }
}

async fn shown(pooler: &Pooler, command: &str) -> Vec<Row> {
    login::query(&target(pooler), "pgbouncer", command)
        .await
        .unwrap()
}

/// Every text as a database's name and in every connect value, in one file.
#[tokio::test]
async fn what_is_accepted_is_loaded_and_shown_as_it_was_meant() {
    for program in versions::all() {
        let mut ini = Ini::new();
        let mut meant = BTreeMap::new();
        for (n, text) in STRANGE.iter().enumerate() {
            let list = |text: &str| {
                ConnectString::new()
                    .with("host", "127.0.0.1")?
                    .with("port", 1)?
                    .with("dbname", text)?
                    .with("user", text)
            };
            let Ok(list) = list(text) else {
                panic!("{text:?} has a quoting in a value")
            };
            let plain = format!("d{n}");
            ini.set(Section::Databases, &plain, &list).unwrap();
            meant.insert(plain, (*text).to_owned());
            let mut quoted = Ini::new();
            let line = quoted.set(Section::Databases, text, &list).map(drop);
            if *text != "*" && line.is_ok() && ini::check(&quoted, program.version).is_ok() {
                ini.overlay(&quoted);
                meant.insert((*text).to_owned(), (*text).to_owned());
            }
        }
        let newer = program.version >= ini::text::QUOTED_NAMES_SINCE;
        assert_eq!(meant.contains_key("sales 2026"), newer, "{program}");
        ini.set(Section::Pgbouncer, "auth_type", "any").unwrap();
        ini.set(
            Section::Pgbouncer,
            "server_check_query",
            "select 1 ; # not a comment",
        )
        .unwrap();
        let marker = Marker::of("0a1b2c3d");
        let text = ini.publish(&marker);
        let read = reader::read(&text, program.version).unwrap();
        assert!(read.len() > STRANGE.len());

        let (databases, settings) = halves(&text);
        let pooler = Pooler::start_as(&program.path, &databases, &settings, &[]).await;
        let rows = shown(&pooler, "SHOW DATABASES").await;
        let rows = rows.into_iter().filter(|row| row["name"] != "pgbouncer");
        let found: BTreeMap<String, String> = rows
            .map(|mut row| {
                assert_eq!(row["force_user"], row["database"], "{program}");
                (row.remove("name").unwrap(), row.remove("database").unwrap())
            })
            .collect();
        assert_eq!(found, meant, "{program}");
        let console = Console::connect(&target(&pooler)).await.unwrap();
        let config = console.config().await.unwrap();
        assert_eq!(config["server_check_query"], "select 1 ; # not a comment");
        assert_eq!(Marker::in_config(&config), Some(marker), "{program}");
    }
}

/// The lines of `[databases]`, and those of `[pgbouncer]`.
fn halves(text: &str) -> (String, String) {
    let (databases, settings) = text.split_once("\n[pgbouncer]\n").unwrap();
    let databases = databases.strip_prefix("[databases]\n").unwrap();
    (databases.to_owned(), settings.to_owned())
}

/// Files by hand: the program ends or starts, and the reader says so before.
#[tokio::test]
async fn the_second_reader_reads_as_the_programs_do() {
    for program in versions::all() {
        for (databases, loads) in [
            ("a = host=b", true),
            (" a.b-c*_9\t=\thost=b", true),
            ("= host=b", true),
            (
                "'a b' = host=c",
                program.version >= ini::text::QUOTED_NAMES_SINCE,
            ),
            ("'a''b' = host=c", false),
            ("'' = host=c", false),
            ("\"a\" = host=c", false),
            ("a b = host=c", false),
            ("ä = host=c", false),
            ("\u{a0}a = host=c", false),
            ("a", false),
            ("[databases] a = host=b", true),
            ("[nothing]", false),
            ("; [nothing]\n# too", true),
        ] {
            let directory = pooler_directory();
            let address = free_port(own_address());
            let text = format!(
                "[databases]\n{databases}\n[pgbouncer]\nlisten_addr={}\nlisten_port={}\n\
                 unix_socket_dir=\n",
                address.ip(),
                address.port()
            );
            let read = reader::read(&text, program.version);
            assert_eq!(read.is_ok(), loads, "{program}: {databases:?}: {read:?}");
            write_owned(&directory.path().join("pgbouncer.ini"), &text);
            assert_eq!(
                starts(&program, &directory).await,
                loads,
                "{program}: {databases:?}"
            );
        }
    }
}

async fn starts(program: &versions::Program, directory: &tempfile::TempDir) -> bool {
    let log = directory.path().join("log");
    let mut child = crate::support::pgbouncer(&program.path, directory.path())
        .stderr(std::fs::File::create(&log).unwrap())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let up = eventually(BOUND, async || {
        let text = std::fs::read_to_string(&log).unwrap();
        match child.try_wait().unwrap() {
            Some(_) => Ok(false),
            None if text.contains("process up") => Ok(true),
            None => Err(text),
        }
    })
    .await;
    let _may_have_ended = child.kill();
    child.wait().unwrap();
    up
}

/// A line that does not load takes the marker away or leaves the former one, wherever it stands, and
/// whatever `RELOAD` answers.
#[tokio::test]
async fn a_reload_that_loads_nothing_does_not_show_its_marker() {
    for program in versions::all() {
        let (old, new) = (Marker::of("01d"), Marker::of("2e3"));
        let parsed = "[pgbouncer]\nauth_type = trust\nserver_lifetime = 77\n\
                      [users]\nann = pool_mode=session\n";
        let mut ini = Ini::parse(parsed).unwrap();
        ini.set(Section::Databases, "a", "host=127.0.0.1 port=1")
            .unwrap();
        let settings = "auth_type = trust\nauth_file = {dir}/users\nadmin_users = anybody";
        let users = [("users", "\"anybody\" \"x\"\n")];
        let pooler = Pooler::start_as(&program.path, "", settings, &users).await;
        let console = Console::connect(&target(&pooler)).await.unwrap();
        let config = console.config().await.unwrap();
        for key in [
            "auth_file",
            "admin_users",
            "listen_addr",
            "listen_port",
            "unix_socket_dir",
        ] {
            ini.set(Section::Pgbouncer, key, &config[key]).unwrap();
        }
        let load = async |text: &str| {
            pooler.write("pgbouncer.ini", text);
            // From 1.25 on the answer is an error where nothing was loaded.
            let _answer = console.reload().await;
            Marker::in_config(&console.config().await.unwrap())
        };
        assert_eq!(
            load(&ini.publish(&old)).await,
            Some(old.clone()),
            "{program}"
        );
        let good = ini.publish(&new);
        for (broken, shown) in [
            (
                good.replace("[databases]\n", "[databases]\nb b = host=c\n"),
                Some(&old),
            ),
            (
                good.replace("[users]\n", "[users]\nbob = colour=red\n"),
                Some(&old),
            ),
            (
                good.replace("server_lifetime = 77", "server_lifetime = x"),
                None,
            ),
            (good.replace("server_lifetime = 77", "colour = red"), None),
        ] {
            assert_ne!(broken, good);
            assert_eq!(load(&broken).await.as_ref(), shown, "{program}:\n{broken}");
            assert_eq!(
                load(&ini.publish(&old)).await,
                Some(old.clone()),
                "{program}"
            );
        }
        assert_eq!(load(&good).await, Some(new), "{program}");
    }
}
