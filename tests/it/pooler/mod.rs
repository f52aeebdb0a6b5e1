//! The program as it really is: console, probe, login, drain and ini check against pgbouncer and
//! PostgreSQL from the distribution.

mod crew;
mod drains;
mod ini_check;
mod later_versions;
mod names;

use std::net::SocketAddr;
use std::time::Duration;

use bouncert::fence::Fence;
use bouncert::local::postgres::{PostgresOptions, ServerAuth, ThrowAwayPostgres};
use bouncert::pgbouncer::Version;
use bouncert::pgbouncer::console::{Console, ConsoleError, PoolMode};
use bouncert::pgbouncer::drain::{self, EndedBy, Limits};
use bouncert::pgbouncer::login;
use bouncert::pgbouncer::probe::{self, ProbeError, Served};
use bouncert::pgbouncer::reload::{self, Means};
use bouncert::pgbouncer::session::{SessionError, Target};
use bouncert::pgbouncer::tls::{ClientTls, Identity};
use bouncert::redacted::Redacted;
use tokio::task::JoinSet;

use crate::support::{Pair, Pooler, TestCa, eventually, free_port, own_address};

const BOUND: Duration = Duration::from_secs(10);
const NAME: &str = "tills.shop.svc";
const USERS: &str = "\"keeper\" \"k33p\"\n\"clerk\" \"cl3rk\"\n";

fn target(pooler: &Pooler, user: &str, password: &str, tls: Option<ClientTls>) -> Target {
    Target {
        address: pooler.address,
        user: user.to_owned(),
        password: Some(Redacted::new(password.to_owned())),
        tls,
        timeout: BOUND,
        fence: Fence::default(),
    }
}

fn keeper(pooler: &Pooler, tls: Option<ClientTls>) -> Target {
    target(pooler, "keeper", "k33p", tls)
}

fn client_tls(name: &str, ca: &TestCa, pair: Option<&Pair>) -> ClientTls {
    let identity =
        pair.map(|pair| Identity::from_pem(pair.cert.as_bytes(), pair.key.as_bytes()).unwrap());
    ClientTls::verify_full(name, ca.pem.as_bytes(), identity).unwrap()
}

/// A pooler in that `sslmode`, whose server certificate and clients are of `ca`.
async fn tls_pooler(mode: &str, databases: &str, ca: &TestCa, leaf: &Pair) -> Pooler {
    let settings = format!(
        "auth_type=scram-sha-256\nauth_file={{dir}}/users\nadmin_users=keeper\n\
         client_tls_sslmode={mode}\nclient_tls_key_file={{dir}}/key\n\
         client_tls_cert_file={{dir}}/cert\nclient_tls_ca_file={{dir}}/ca"
    );
    let files = [
        ("users", USERS),
        ("key", leaf.key.as_str()),
        ("cert", leaf.cert.as_str()),
        ("ca", ca.pem.as_str()),
    ];
    Pooler::start(databases, &settings, &files).await
}

async fn postgres(auth: ServerAuth) -> ThrowAwayPostgres {
    let options = PostgresOptions {
        address: own_address(),
        auth,
        superuser: "owner".to_owned(),
        ..PostgresOptions::new("0wner")
    };
    let server = ThrowAwayPostgres::start(&options).await.expect("starts");
    let sql = "CREATE ROLE clerk LOGIN PASSWORD 'cl3rk'; CREATE TABLE sales (id int);\
               GRANT ALL ON sales TO clerk";
    server.execute("postgres", sql).await.expect("prepared");
    server
}

fn line(server: &ThrowAwayPostgres) -> String {
    let address = server.address();
    format!(
        "shop = host={} port={} dbname=postgres",
        address.ip(),
        address.port()
    )
}

/// A pooler without TLS in front of `server`.
async fn plain_pooler(server: &ThrowAwayPostgres, mode: &str) -> Pooler {
    let settings =
        format!("auth_type=md5\nauth_file={{dir}}/users\nadmin_users=keeper\npool_mode={mode}");
    Pooler::start(&line(server), &settings, &[("users", USERS)]).await
}

/// A client of the application.
struct Clerk {
    client: tokio_postgres::Client,
    _driver: JoinSet<()>,
}

impl Clerk {
    async fn arrive(pooler: &Pooler) -> Self {
        Self::at(pooler.address).await
    }

    async fn at(pooler: SocketAddr) -> Self {
        let (client, connection) = tokio_postgres::Config::new()
            .host(pooler.ip().to_string())
            .port(pooler.port())
            .user("clerk")
            .password("cl3rk")
            .dbname("shop")
            .connect(tokio_postgres::NoTls)
            .await
            .expect("logs in");
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let _ended = connection.await;
        });
        Self {
            client,
            _driver: driver,
        }
    }

    async fn run(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute(sql).await
    }
}

#[tokio::test]
async fn the_console_tells_version_and_settings_over_plaintext() {
    let settings =
        "auth_type=md5\nauth_file={dir}/users\nadmin_users=keeper\npool_mode=transaction";
    let pooler = Pooler::start("", settings, &[("users", USERS)]).await;
    let console = Console::connect(&keeper(&pooler, None)).await.unwrap();
    assert!(console.version().await.unwrap() >= Version::new(1, 18, 0));
    assert_eq!(console.config().await.unwrap()["pool_mode"], "transaction");
    assert_eq!(console.clients().await.unwrap(), []);
    console.reload().await.unwrap();
    console.resume().await.unwrap();
    console.close().await;

    let wrong = target(&pooler, "keeper", "guess", None);
    let refused = Console::connect(&wrong).await.err().expect("refused");
    assert!(
        matches!(&refused, ConsoleError::Session(SessionError::Login { user, .. }) if user == "keeper"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_console_is_reached_over_tls_that_both_sides_verify() {
    let (ca, foreign) = (TestCa::new("tills root"), TestCa::new("stranger root"));
    let leaf = ca.server(&[NAME]);
    let pooler = tls_pooler("verify-full", "", &ca, &leaf).await;
    let pair = ca.client("keeper");
    let connect = async |tls| Console::connect(&keeper(&pooler, tls)).await.map(drop);
    let failure = async |tls| match connect(tls).await {
        Err(ConsoleError::Session(error)) => error,
        other => panic!("{other:?}"),
    };

    connect(Some(client_tls(NAME, &ca, Some(&pair))))
        .await
        .expect("verified");
    let error = failure(Some(client_tls(NAME, &ca, None))).await;
    assert!(
        matches!(error, SessionError::ClientCertificateMissing { .. }),
        "{error:?}"
    );
    let stranger = foreign.client("keeper");
    let error = failure(Some(client_tls(NAME, &ca, Some(&stranger)))).await;
    assert!(
        error
            .to_string()
            .ends_with("it is not from a CA that is trusted there"),
        "{error:?}"
    );
    for tls in [
        client_tls("other.shop.svc", &ca, Some(&pair)),
        client_tls(NAME, &foreign, Some(&pair)),
    ] {
        let error = failure(Some(tls)).await;
        assert!(
            matches!(error, SessionError::ServerCertificate { .. }),
            "{error:?}"
        );
    }
    let error = failure(None).await;
    assert!(
        matches!(error, SessionError::TlsRequired { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_probe_reads_the_leaf_in_every_sslmode() {
    let ca = TestCa::new("tills root");
    let leaf = ca.server(&[NAME]);
    for mode in [
        "disable",
        "allow",
        "prefer",
        "require",
        "verify-ca",
        "verify-full",
    ] {
        let pooler = tls_pooler(mode, "", &ca, &leaf).await;
        let served = probe::probe(pooler.address, Some(NAME), BOUND).await;
        let served = served.unwrap_or_else(|error| panic!("{mode}: {error}"));
        match served {
            Served::Plaintext => assert_eq!(mode, "disable"),
            Served::Tls(shown) => {
                assert_ne!(mode, "disable");
                assert_eq!(shown.leaf(), Some(leaf.der.as_slice()), "{mode}");
                assert_eq!(shown.fingerprint(), Some(probe::fingerprint(&leaf.der)));
                assert_eq!(shown.protocol.as_deref(), Some("TLSv1.3"));
                assert!(shown.cipher.unwrap().starts_with("TLS_AES"));
                assert!(shown.asks_for_certificate);
            }
        }
        if !mode.starts_with("verify") {
            assert!(
                !pooler.log().contains("WARNING"),
                "{mode}: {}",
                pooler.log()
            );
        }
    }
}

#[tokio::test]
async fn a_probe_reads_the_leaf_also_when_tls_1_2_breaks_off() {
    let ca = TestCa::new("tills root");
    let leaf = ca.server(&[NAME]);
    let mode = "verify-full\nclient_tls_protocols=tlsv1.2";
    let pooler = tls_pooler(mode, "", &ca, &leaf).await;
    let served = probe::probe(pooler.address, None, BOUND).await.unwrap();
    assert_eq!(served.fingerprint(), Some(probe::fingerprint(&leaf.der)));

    let error = probe::probe(free_port(own_address()), None, BOUND).await;
    assert!(
        matches!(error, Err(ProbeError::Unreachable { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_login_is_proved_or_refused_in_words() {
    for auth in [ServerAuth::Scram, ServerAuth::Md5] {
        let server = postgres(auth).await;
        let (ca, foreign) = (TestCa::new("tills root"), TestCa::new("stranger root"));
        let leaf = ca.server(&[NAME]);
        let databases = format!("{}\ngone = host={} port=1", line(&server), own_address());
        let pooler = tls_pooler("verify-full", &databases, &ca, &leaf).await;
        let clerk = |pair: Option<&Pair>, password: &str| {
            target(
                &pooler,
                "clerk",
                password,
                Some(client_tls(NAME, &ca, pair)),
            )
        };
        let pair = ca.client("clerk");

        login::prove(&clerk(Some(&pair), "cl3rk"), "shop")
            .await
            .expect("proved");
        let words = async |target: Target, database: &str| {
            let error = login::prove(&target, database).await.expect_err("refused");
            error
                .to_string()
                .replace(&pooler.address.to_string(), "POOLER")
        };
        assert_eq!(
            words(clerk(None, "cl3rk"), "shop").await,
            "POOLER refuses clients without a certificate"
        );
        assert_eq!(
            words(clerk(Some(&foreign.client("clerk")), "cl3rk"), "shop").await,
            "POOLER refused the client certificate: it is not from a CA that is trusted there"
        );
        assert!(
            words(clerk(Some(&pair), "guess"), "shop")
                .await
                .starts_with("POOLER refused the login of user clerk: ")
        );
        let backend = words(clerk(Some(&pair), "cl3rk"), "nowhere").await;
        assert!(
            backend.starts_with("POOLER cannot serve the database: "),
            "{backend}"
        );
        let hurried = Target {
            timeout: Duration::from_millis(400),
            ..clerk(Some(&pair), "cl3rk")
        };
        assert_eq!(
            words(hurried, "gone").await,
            "POOLER did not answer within 400ms while logging in \
             (a pooler lets logins wait while its database is out of reach)"
        );
        server.stop();
    }
}

#[tokio::test]
async fn a_pause_that_takes_too_long_is_taken_back() {
    let server = postgres(ServerAuth::Scram).await;
    let pooler = plain_pooler(&server, "transaction").await;
    let busy = Clerk::arrive(&pooler).await;
    busy.run("BEGIN; INSERT INTO sales VALUES (1)")
        .await
        .unwrap();

    let mut console = Console::connect(&keeper(&pooler, None)).await.unwrap();
    let bound = Duration::from_millis(300);
    let paused = console.pause(bound).await;
    assert!(
        matches!(paused, Err(ConsoleError::PauseTimedOut { .. })),
        "{paused:?}"
    );
    let pools = console.pools().await.expect("the console goes on");
    assert_eq!(pools[0].mode, PoolMode::Transaction);
    let other = Clerk::arrive(&pooler).await;
    other
        .run("INSERT INTO sales VALUES (2)")
        .await
        .expect("not paused");

    busy.run("COMMIT").await.expect("nothing was cut");
    console.pause(BOUND).await.expect("no transaction is open");
    let again = console.pause(BOUND).await;
    assert!(
        matches!(again, Err(ConsoleError::AlreadyPaused)),
        "{again:?}"
    );
    let waits = tokio::time::timeout(bound, other.run("SELECT 1")).await;
    assert!(
        waits.is_err(),
        "a transaction started although the pooler is paused"
    );
    console.resume().await.unwrap();
    console.resume().await.expect("a second time does no harm");
}

#[tokio::test]
async fn a_drain_lets_an_open_transaction_commit_and_starts_none() {
    let server = postgres(ServerAuth::Scram).await;
    let mut pooler = plain_pooler(&server, "transaction").await;
    let (busy, idle, leaver) = (
        Clerk::arrive(&pooler).await,
        Clerk::arrive(&pooler).await,
        Clerk::arrive(&pooler).await,
    );
    for clerk in [&idle, &leaver] {
        clerk.run("SELECT 1").await.unwrap();
    }
    busy.run("BEGIN; INSERT INTO sales VALUES (7)")
        .await
        .unwrap();

    let keeper = keeper(&pooler, None);
    let limits = Limits {
        leave: Duration::from_millis(600),
        quiesce: BOUND,
    };
    let mut work = JoinSet::new();
    work.spawn(async move {
        tokio::time::sleep(Duration::from_millis(250)).await;
        drop(leaver);
        tokio::time::sleep(Duration::from_millis(900)).await;
        busy.run("INSERT INTO sales VALUES (8); COMMIT")
            .await
            .map(|()| busy)
    });
    let report = drain::drain(&keeper, &limits).await.unwrap();
    let busy = work
        .join_next()
        .await
        .unwrap()
        .unwrap()
        .expect("nothing was cut");

    assert_eq!(report.clients_left_by_themselves, 1, "{report:?}");
    assert_eq!(report.closed_between_transactions, 2, "{report:?}");
    assert_eq!(report.cut_in_transaction, 0, "{report:?}");
    assert!(report.waited >= Duration::from_secs(1), "{report:?}");
    if report.version.can_wait_for_servers() {
        assert!(matches!(report.ended_by, EndedBy::ShutDown), "{report:?}");
    } else {
        let EndedBy::Paused(quiesced) = report.ended_by else {
            panic!("{report:?}");
        };
        pooler.terminate();
        quiesced.deleted();
    }
    eventually(BOUND, async || pooler.ended().ok_or("runs")).await;
    drop((busy, idle));
    let rows = server
        .execute("postgres", "SELECT count(*) AS n FROM sales")
        .await;
    assert_eq!(rows.unwrap()[0]["n"], "2");
}

#[tokio::test]
async fn a_drain_says_what_a_stop_would_cut() {
    let server = postgres(ServerAuth::Md5).await;
    for mode in ["transaction", "session"] {
        let pooler = plain_pooler(&server, mode).await;
        let limits = Limits {
            leave: Duration::from_millis(100),
            quiesce: Duration::from_millis(300),
        };
        let keeper = keeper(&pooler, None);

        let (busy, idle) = (Clerk::arrive(&pooler).await, Clerk::arrive(&pooler).await);
        busy.run("BEGIN; SELECT 1").await.unwrap();
        let report = drain::drain(&keeper, &limits).await.unwrap();
        assert!(
            matches!(report.ended_by, EndedBy::StillOpen),
            "{mode}: {report:?}"
        );
        assert_eq!(report.cut_in_transaction, 1, "{mode}: {report:?}");
        assert_eq!(report.closed_between_transactions, 1, "{mode}: {report:?}");
        if !report.version.can_wait_for_servers() {
            idle.run("SELECT 1")
                .await
                .expect("the pooler is not paused");
        }
    }
}

#[tokio::test]
async fn a_pooler_that_is_not_deleted_after_all_is_released() {
    let server = postgres(ServerAuth::Scram).await;
    let pooler = plain_pooler(&server, "transaction").await;
    let clerk = Clerk::arrive(&pooler).await;
    clerk.run("SELECT 1").await.unwrap();
    let keeper = keeper(&pooler, None);
    let limits = Limits {
        leave: Duration::ZERO,
        quiesce: BOUND,
    };
    let report = drain::drain(&keeper, &limits).await.unwrap();
    if let EndedBy::Paused(quiesced) = report.ended_by {
        quiesced.release().await.unwrap();
        clerk.run("SELECT 1").await.expect("goes on");
        drain::release(&keeper).await.expect("again does no harm");
    }
}

#[tokio::test]
async fn a_reload_puts_a_new_leaf_in_force_and_fails_no_transaction() {
    let server = postgres(ServerAuth::Scram).await;
    let ca = TestCa::new("tills root");
    let (old, new) = (ca.server(&[NAME]), ca.server(&[NAME]));
    for (backend_tls, means) in [("disable", Means::Plain), ("prefer", Means::Paused)] {
        let mode = format!("allow\npool_mode=transaction\nserver_tls_sslmode={backend_tls}");
        let pooler = tls_pooler(&mode, &line(&server), &ca, &old).await;
        let clerk = Clerk::arrive(&pooler).await;
        clerk.run("BEGIN; SELECT 1; COMMIT").await.unwrap();
        pooler.write("cert", &new.cert);
        pooler.write("key", &new.key);
        let shown = async || probe::probe(pooler.address, None, BOUND).await.unwrap();
        assert_eq!(
            shown().await.fingerprint(),
            Some(probe::fingerprint(&old.der))
        );

        let keeper = keeper(&pooler, None);
        assert_eq!(reload::reload(&keeper, BOUND).await.unwrap(), means);
        assert_eq!(
            shown().await.fingerprint(),
            Some(probe::fingerprint(&new.der))
        );
        clerk.run("BEGIN; SELECT 1; COMMIT").await.expect("goes on");
    }
}

#[tokio::test]
async fn a_throw_away_postgresql_leaves_nothing() {
    let server = postgres(ServerAuth::Trust).await;
    let (address, directory) = (server.address(), server.directory().to_owned());
    assert!(directory.join("data/PG_VERSION").is_file());
    server.stop();
    assert!(!directory.exists());
    let error = probe::accepts(address, BOUND).await;
    assert!(
        matches!(error, Err(ProbeError::Unreachable { .. })),
        "{error:?}"
    );
}
