//! TLS between pooler and PostgreSQL, with real PostgreSQL, every PgBouncer that is here, and psql.

mod rolled;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bouncert::api::SslMode;
use bouncert::blueprint::backend_tls::{BackendTls, ClientPair};
use bouncert::blueprint::{Backend, Credentials};
use bouncert::clock::Clock;
use bouncert::local::postgres::{PostgresOptions, ThrowAwayPostgres};
use bouncert::pgbouncer::probe::{Served, probe};
use bouncert::pki::pem::read_certificates;
use bouncert::surroundings::{connection, prove_at};
use futures::future::join_all;
use serde_json::json;

use crate::stage::PASSWORD;
use crate::support::{
    Pair, Pooler, TestCa, eventually, free_port, own_address, write_owned, write_private,
};
use crate::versions;

const SOON: Duration = Duration::from_secs(30);

/// What PostgreSQL shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shows {
    NoTls,
    Good,
    OtherCa,
    WrongName,
    Expired,
}

const ALL: [Shows; 5] = [
    Shows::NoTls,
    Shows::Good,
    Shows::OtherCa,
    Shows::WrongName,
    Shows::Expired,
];

/// A PostgreSQL whose certificate is exchanged while it runs.
pub(crate) struct Server {
    pub(crate) postgres: ThrowAwayPostgres,
    ca: TestCa,
    other: TestCa,
}

impl Server {
    async fn start() -> Self {
        let options = PostgresOptions::new(PASSWORD);
        Self {
            postgres: ThrowAwayPostgres::start(&options).await.unwrap(),
            ca: TestCa::new("books ca"),
            other: TestCa::new("other ca"),
        }
    }

    fn address(&self) -> SocketAddr {
        self.postgres.address()
    }

    async fn show(&self, what: Shows) {
        // Poolers of several versions look `localhost` up differently.
        let names = ["127.0.0.1"];
        let pair = match what {
            Shows::NoTls => None,
            Shows::Good => Some(self.ca.server(&names)),
            Shows::OtherCa => Some(self.other.server(&names)),
            Shows::WrongName => Some(self.ca.server(&["elsewhere.example"])),
            Shows::Expired => Some(self.ca.expired_server(&names)),
        };
        show(&self.postgres, pair.as_ref()).await;
    }
}

/// Has PostgreSQL show a certificate, or none, to new connections.
pub(crate) async fn show(postgres: &ThrowAwayPostgres, pair: Option<&Pair>) {
    let run = async |sql: &str| postgres.execute("postgres", sql).await.unwrap();
    if let Some(pair) = pair {
        let data = postgres.directory().join("data");
        write_owned(&data.join("server.crt"), &pair.cert);
        write_owned(&data.join("server.key"), &pair.key);
    }
    let ssl = if pair.is_some() { "on" } else { "off" };
    run(&format!("ALTER SYSTEM SET ssl = {ssl}")).await;
    run("SELECT pg_reload_conf()").await;
    eventually(SOON, async || {
        let shown = probe(postgres.address(), None, SOON).await.unwrap();
        let is_shown = match (&shown, pair) {
            (Served::Plaintext, None) => true,
            (Served::Tls(handshake), Some(pair)) => handshake.leaf() == Some(pair.der.as_slice()),
            _ => false,
        };
        is_shown.then_some(()).ok_or(shown)
    })
    .await;
}

/// What a login came to: whether it was encrypted, or why there was none.
async fn login(conninfo: &str) -> Result<bool, String> {
    const QUERY: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let output = tokio::process::Command::new("psql")
        .args(["-X", "-At", "-c", QUERY, conninfo])
        .env("PGPASSWORD", PASSWORD)
        .env("PGCONNECT_TIMEOUT", "20")
        .env("PGSSLCERT", "/nonexistent")
        .output()
        .await
        .unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap().trim() == "t")
    } else {
        Err(String::from_utf8(output.stderr).unwrap())
    }
}

/// What AppBinding `postgresql://…?sslmode=<mode>` with that bundle asks a pooler to do.
fn asked(address: SocketAddr, mode: SslMode, bundle: &str) -> Backend {
    let url = format!(
        "postgresql://127.0.0.1:{}/postgres?sslmode={}",
        address.port(),
        mode.as_str()
    );
    let bundle = (mode != SslMode::Disable).then(|| STANDARD.encode(bundle));
    let config = json!({ "url": url, "caBundle": bundle });
    let config = serde_json::from_value(config).unwrap();
    let (address, tls) = connection((&config, "shop"), None, None).unwrap();
    Backend {
        address,
        tls,
        superuser: Credentials {
            username: "postgres".to_owned(),
            password: PASSWORD.to_owned().into(),
        },
    }
}

/// A pooler that is told what we would render.
async fn pooler(program: &Path, server: SocketAddr, tls: &BackendTls) -> Pooler {
    let mut databases = String::new();
    for shows in ALL {
        // One name for each, so that no connection of an earlier one is used again.
        writeln!(
            databases,
            "{shows:?} = host=127.0.0.1 port={} dbname=postgres user=postgres password={PASSWORD}",
            server.port()
        )
        .unwrap();
    }
    let mut settings = String::from(
        "auth_type = trust\nauth_file = {dir}/users\nquery_wait_timeout = 2\n\
         server_connect_timeout = 10\n",
    );
    for (key, value) in tls.settings() {
        let value = value.replace("/etc/config", "{dir}");
        writeln!(settings, "{key} = {value}").unwrap();
    }
    let held = tls.files();
    let mut files = vec![("users", "\"clerk\" \"\"\n")];
    files.extend(
        held.iter()
            .map(|(name, text)| (name.as_str(), text.expose().as_str())),
    );
    Pooler::start_as(program, &databases, &settings, &files).await
}

/// libpq's table: what the pooler does is what psql does. Where psql is content without TLS, it may
/// go on in clear text after a handshake that failed; a pooler then goes on with TLS.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_connects_where_psql_does_and_the_daemon_knows_it_before() {
    let server = Server::start().await;
    let (address, ca) = (server.address(), server.ca.pem.clone());
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("ca.crt");
    write_private(&root, &ca);
    let mut poolers = Vec::new();
    for program in versions::all() {
        for mode in SslMode::ALL {
            let backend = asked(address, mode, &ca);
            let pooler = pooler(&program.path, address, &backend.tls).await;
            poolers.push((program.version, mode, backend, pooler));
        }
    }
    let by_psql = |mode: SslMode| {
        let conninfo = format!(
            "host=127.0.0.1 port={} user=postgres dbname=postgres sslmode={} sslrootcert={}",
            address.port(),
            mode.as_str(),
            root.display()
        );
        async move { (mode, login(&conninfo).await) }
    };
    for shows in ALL {
        server.show(shows).await;
        let direct = join_all(SslMode::ALL.map(by_psql)).await;
        let looks = poolers.iter().map(|(version, mode, backend, pooler)| {
            let expected = direct.iter().find(|(of, _)| of == mode);
            let (_, expected) = expected.unwrap();
            let conninfo = format!(
                "host={} port={} user=clerk dbname={shows:?} sslmode=disable",
                pooler.address.ip(),
                pooler.address.port()
            );
            async move {
                let seen = login(&conninfo).await;
                let told = format!("{version} {shows:?} {mode:?}: {seen:?}, psql {expected:?}");
                assert_eq!(seen.is_ok(), expected.is_ok(), "{told}; {}", pooler.log());
                match (&seen, expected) {
                    (Ok(true), Ok(false)) => {
                        let is_content = [SslMode::Allow, SslMode::Prefer].contains(mode);
                        assert!(is_content, "{told}");
                    }
                    (Ok(seen), Ok(expected)) => assert_eq!(seen, expected, "{told}"),
                    _ => {}
                }
                if backend.tls.needs_proof() {
                    let proven = prove_at(&[address], backend, Clock::System.now()).await;
                    assert_eq!(proven.is_ok(), seen.is_ok(), "{told}, daemon {proven:?}");
                    assert!(proven.err().is_none_or(|refusal| refusal.is_verdict()));
                }
            }
        });
        join_all(looks).await;
    }
}

/// PostgreSQL asks for a certificate, and the AppBinding names one: a wrong one is refused before a
/// pooler shows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_that_postgresql_refuses_is_known_before() {
    let server = Server::start().await;
    let postgres = &server.postgres;
    write_owned(
        &postgres.directory().join("data/clients.crt"),
        &server.ca.pem,
    );
    let sql = "ALTER SYSTEM SET ssl_ca_file = 'clients.crt'";
    postgres.execute("postgres", sql).await.unwrap();
    server.show(Shows::Good).await;
    let backend = |pair: &Pair| {
        let mut backend = asked(server.address(), SslMode::VerifyFull, &server.ca.pem);
        backend.tls.identity = Some(ClientPair {
            chain: pair.cert.clone(),
            key: pair.key.clone().into(),
        });
        backend
    };
    let now = Clock::System.now();
    let fine = backend(&server.ca.client("postgres"));
    prove_at(&[server.address()], &fine, now).await.unwrap();
    let stranger = backend(&server.other.client("postgres"));
    let refusal = prove_at(&[server.address()], &stranger, now)
        .await
        .unwrap_err();
    assert!(refusal.is_verdict(), "{refusal}");
    let text = refusal.to_string();
    assert!(
        text.contains("spec.tlsSecret") && text.contains("not from a CA"),
        "{text}"
    );
    for program in versions::all() {
        for (backend, expected) in [(&fine, true), (&stranger, false)] {
            let pooler = pooler(&program.path, server.address(), &backend.tls).await;
            let conninfo = format!(
                "host={} port={} user=clerk dbname=Good sslmode=disable",
                pooler.address.ip(),
                pooler.address.port()
            );
            let seen = login(&conninfo).await;
            assert_eq!(
                seen.is_ok(),
                expected,
                "{program}: {seen:?}; {}",
                pooler.log()
            );
        }
    }
}

/// A PostgreSQL that nobody can ask gives no verdict, and one without TLS does.
#[tokio::test]
async fn silence_is_no_verdict_and_an_answer_without_tls_is_one() {
    let server = Server::start().await;
    let ca = &server.ca.pem;
    let now = Clock::System.now();
    let nobody = free_port(own_address());
    let backend = asked(nobody, SslMode::VerifyFull, ca);
    let silence = prove_at(&[nobody], &backend, now).await.unwrap_err();
    assert!(!silence.is_verdict(), "{silence}");
    let backend = asked(server.address(), SslMode::Require, ca);
    let both = [nobody, server.address()];
    let refusal = prove_at(&both, &backend, now).await.unwrap_err();
    assert!(
        refusal.is_verdict(),
        "a verdict goes before silence: {refusal}"
    );
    assert!(refusal.to_string().contains("offers no TLS"), "{refusal}");
}

/// A root, and a certificate without extensions: what PostgreSQL's manual has users make.
#[tokio::test]
async fn a_certificate_as_postgresqls_manual_makes_it_is_proven() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let made = std::process::Command::new("openssl")
            .args(arguments)
            .current_dir(directory.path())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&made.stderr).into_owned();
        assert!(made.status.success(), "{told}");
    };
    run(&[
        "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "9", "-subj", "/CN=root",
        "-keyout", "root.key", "-out", "root.crt",
    ]);
    run(&[
        "req",
        "-new",
        "-nodes",
        "-newkey",
        "rsa:2048",
        "-subj",
        "/CN=127.0.0.1",
        "-keyout",
        "server.key",
        "-out",
        "server.csr",
    ]);
    run(&[
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-days",
        "9",
        "-CA",
        "root.crt",
        "-CAkey",
        "root.key",
        "-CAcreateserial",
        "-out",
        "server.crt",
    ]);
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
    let cert = read("server.crt");
    let der = read_certificates(&cert).unwrap()[0].to_vec();
    let key = read("server.key");
    show(&server.postgres, Some(&Pair { cert, key, der })).await;
    let backend = asked(server.address(), SslMode::VerifyFull, &read("root.crt"));
    let now = Clock::System.now();
    prove_at(&[server.address()], &backend, now).await.unwrap();
    let program = versions::all().remove(0);
    let pooler = pooler(&program.path, server.address(), &backend.tls).await;
    let conninfo = format!(
        "host={} port={} user=clerk dbname=Good sslmode=disable",
        pooler.address.ip(),
        pooler.address.port()
    );
    assert_eq!(login(&conninfo).await, Ok(true), "{}", pooler.log());
}
