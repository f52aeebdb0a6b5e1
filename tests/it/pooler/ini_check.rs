//! The ini check against the program itself: both accept and refuse the same files.

use std::time::Duration;

use bouncert::fence::Fence;
use bouncert::pgbouncer::Version;
use bouncert::pgbouncer::console::Console;
use bouncert::pgbouncer::ini::{self, Ini, Section};
use bouncert::pgbouncer::session::Target;

use crate::support::{
    Pooler, eventually, free_port, own_address, pgbouncer, pgbouncer_program, pooler_directory,
    write_owned,
};

const BOUND: Duration = Duration::from_secs(10);

/// Whether the program itself loads the file; its log otherwise.
async fn loads(ini: &str) -> Result<(), String> {
    let directory = pooler_directory();
    write_owned(&directory.path().join("pgbouncer.ini"), ini);
    let log = directory.path().join("log");
    let file = std::fs::File::create(&log).unwrap();
    let mut child = pgbouncer(&pgbouncer_program(), directory.path())
        .stderr(file)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("pgbouncer is installed");
    let outcome = eventually(BOUND, async || {
        let text = std::fs::read_to_string(&log).unwrap();
        match child.try_wait().unwrap() {
            Some(_) => Ok(Err(text)),
            None if text.contains("process up") => Ok(Ok(())),
            None => Err(text),
        }
    })
    .await;
    let _may_have_ended = child.kill();
    child.wait().unwrap();
    outcome
}

#[tokio::test]
async fn what_the_check_says_is_what_the_program_does() {
    let version = std::process::Command::new(pgbouncer_program())
        .arg("--version")
        .output();
    let version = String::from_utf8(version.expect("installed").stdout).unwrap();
    let version = Version::parse(&version).unwrap();
    for (databases, settings) in [
        ("", ""),
        (
            "",
            "auth_type = MD5\npool_mode=Statement\nserver_lifetime=1.5",
        ),
        ("", "AUTH_TYPE=md5"),
        ("", "log_connections=yes"),
        ("", "log_stats=0x1"),
        ("", "query_timeout=-1"),
        ("", "colour=red"),
        ("", "auth_type=md5 ; a comment"),
        ("", "listen_port="),
        ("", "suspend_timeout=3\nuser=\njob_name=tills"),
        ("", "max_prepared_statements=5"),
        ("", "client_tls_sslmode=require"),
        ("", "auth_type=cert"),
        ("", "[users]\nann=pool_mode=session max_user_connections=3"),
        ("", "[users]\nann=pool_size=3"),
        ("", "[peers]\n1=host=there"),
        ("a-b.c = host=here connect_query='select ''x'''", ""),
        (
            "* = host=here pool_size=3 reserve_pool=1 max_db_connections=2 min_pool_size=1",
            "",
        ),
        (
            "a = dbname=b user=c password=d auth_user=e client_encoding=UTF8 datestyle=ISO",
            "",
        ),
        (
            "a = timezone=UTC application_name=tills pool_mode=session port=5433",
            "",
        ),
        ("a = host=here password='open", ""),
        ("a = host=here colour=red", ""),
        ("a = port=abc", ""),
        ("pgbouncer = host=here", ""),
    ] {
        let address = free_port(own_address());
        let text = format!(
            "[databases]\n{databases}\n[pgbouncer]\nlisten_addr={}\nlisten_port={}\n\
             unix_socket_dir=\n{settings}\n",
            address.ip(),
            address.port()
        );
        let ini = Ini::parse(&text).expect("parses");
        let ours = ini::check(&ini, version);
        let theirs = loads(&ini.render()).await;
        assert_eq!(ours.is_ok(), theirs.is_ok(), "{text}\n{ours:?}\n{theirs:?}");
    }
}

#[tokio::test]
async fn every_setting_that_the_program_shows_is_known() {
    let pooler = Pooler::start("", "auth_type=any", &[]).await;
    let target = Target {
        address: pooler.address,
        user: "anybody".to_owned(),
        password: None,
        tls: None,
        timeout: BOUND,
        fence: Fence::default(),
    };
    let console = Console::connect(&target).await.unwrap();
    let version = console.version().await.unwrap();
    let mut ini = Ini::new();
    for (key, value) in console.config().await.unwrap() {
        ini.set(Section::Pgbouncer, &key, value).unwrap();
    }
    assert!(ini.section(Section::Pgbouncer).count() > 80);
    assert_eq!(ini::check(&ini, version), Ok(()));
}
