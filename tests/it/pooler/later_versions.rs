//! What a later version hears, word for word: a console that answers as 1.24.1 was measured to. The
//! real ones are in `drains`; this one runs where they cannot be had.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bouncert::fence::Fence;
use bouncert::pgbouncer::console;
use bouncert::pgbouncer::drain::{self, EndedBy, Limits};
use bouncert::pgbouncer::reload::{self, Means, ReloadError};
use bouncert::pgbouncer::session::Target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const BOUND: Duration = Duration::from_secs(5);

/// A console of 1.24.1 with one client in a transaction and one outside; `SHUTDOWN
/// WAIT_FOR_SERVERS` ends it at once if `obeys`.
struct Console {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Console {
    async fn start(obeys: bool) -> Self {
        Self::pooling("transaction", obeys).await
    }

    async fn pooling(mode: &'static str, obeys: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&heard);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            converse(stream, &notes, mode, obeys).await;
        });
        Self {
            address,
            heard,
            _tasks: tasks,
        }
    }
}

async fn converse(mut stream: TcpStream, notes: &Mutex<Vec<String>>, mode: &str, obeys: bool) {
    let length = stream.read_u32().await.unwrap();
    let mut startup = vec![0; length as usize - 4];
    stream.read_exact(&mut startup).await.unwrap();
    let mut greeting = message(b'R', &[0; 4]);
    greeting.extend(message(b'Z', b"I"));
    stream.write_all(&greeting).await.unwrap();
    while let Ok(b'Q') = stream.read_u8().await {
        let length = stream.read_u32().await.unwrap();
        let mut query = vec![0; length as usize - 4];
        stream.read_exact(&mut query).await.unwrap();
        let query = String::from_utf8(query).unwrap();
        let query = query.trim_end_matches('\0').to_owned();
        let rows: &[&[&str]] = match query.as_str() {
            "SHOW VERSION" => &[&["version"], &["PgBouncer 1.24.1"]],
            "SHOW CONFIG" => &[
                &["key", "value"],
                &["pool_mode", mode],
                &["server_tls_sslmode", "prefer"],
            ],
            "SHOW CLIENTS" => &[
                &["id", "user", "database", "port", "link"],
                &["1", "keeper", "pgbouncer", "1", ""],
                &["2", "clerk", "shop", "2", "7"],
                &["3", "clerk", "shop", "3", ""],
            ],
            _ => &[],
        };
        notes.lock().unwrap().push(query.clone());
        stream.write_all(&answer(rows)).await.unwrap();
        if obeys && query.starts_with("SHUTDOWN") {
            return;
        }
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind], length.to_be_bytes().as_slice(), body].concat()
}

/// A header row and rows of text, in PostgreSQL's protocol.
fn answer(rows: &[&[&str]]) -> Vec<u8> {
    let mut text = Vec::new();
    if let Some((header, rows)) = rows.split_first() {
        let count = u16::try_from(header.len()).unwrap().to_be_bytes();
        let mut body = count.to_vec();
        for name in *header {
            body.extend_from_slice(name.as_bytes());
            body.extend_from_slice(&[0; 7]);
            body.extend_from_slice(&25_u32.to_be_bytes());
            body.extend_from_slice(&[0; 8]);
        }
        text.extend(message(b'T', &body));
        for row in rows {
            let mut body = count.to_vec();
            for cell in *row {
                body.extend(u32::try_from(cell.len()).unwrap().to_be_bytes());
                body.extend_from_slice(cell.as_bytes());
            }
            text.extend(message(b'D', &body));
        }
    }
    text.extend(message(b'C', b"OK\0"));
    text.extend(message(b'Z', b"I"));
    text
}

fn target(console: &Console) -> Target {
    Target {
        address: console.address,
        user: "keeper".to_owned(),
        password: None,
        tls: None,
        timeout: BOUND,
        fence: Fence::default(),
    }
}

async fn reloaded(console: &Console) -> Result<Means, ReloadError> {
    let mut session = console::Console::connect(&target(console)).await?;
    reload::reload(&mut session, BOUND).await
}

async fn drained(console: &Console) -> drain::DrainReport {
    let target = target(console);
    let limits = Limits {
        leave: Duration::ZERO,
        quiesce: Duration::from_millis(300),
    };
    drain::drain(&target, &limits).await.expect("drains")
}

#[tokio::test]
async fn from_1_23_a_drain_ends_with_one_graceful_shutdown_and_never_a_pause() {
    let console = Console::start(true).await;
    let report = drained(&console).await;
    assert!(matches!(report.ended_by, EndedBy::ShutDown), "{report:?}");
    assert_eq!(report.closed_between_transactions, 2);
    assert_eq!(report.cut_in_transaction, 0);
    let heard = console.heard.lock().unwrap().clone();
    let stops = heard.iter().filter(|query| query.starts_with("SHUTDOWN"));
    assert_eq!(stops.collect::<Vec<_>>(), ["SHUTDOWN WAIT_FOR_SERVERS"]);
    assert!(!heard.iter().any(|query| query == "PAUSE"), "{heard:?}");
}

#[tokio::test]
async fn from_1_23_a_shutdown_that_waits_too_long_is_counted_by_kind() {
    let console = Console::start(false).await;
    let report = drained(&console).await;
    assert!(matches!(report.ended_by, EndedBy::StillOpen), "{report:?}");
    assert_eq!(report.cut_in_transaction, 1);
    assert_eq!(report.closed_between_transactions, 1);
}

/// A reload in a handshake with PostgreSQL can crash these versions; a pause sees to it that there is
/// none, and is not possible where sessions are pooled.
#[tokio::test]
async fn on_1_24_a_reload_with_tls_towards_postgresql_is_paused_or_not_done() {
    let pooled = Console::pooling("transaction", true).await;
    let means = reloaded(&pooled).await.expect("reloads");
    assert_eq!(means, Means::Paused);
    let orders = |console: &Console| {
        let heard = console.heard.lock().unwrap().clone();
        let asked = heard.into_iter().filter(|query| !query.starts_with("SHOW"));
        asked.collect::<Vec<_>>()
    };
    assert_eq!(orders(&pooled), ["PAUSE", "RELOAD", "RESUME"]);

    let held = Console::pooling("session", true).await;
    let refused = reloaded(&held).await.unwrap_err();
    assert!(matches!(refused, ReloadError::Unsafe { .. }), "{refused}");
    assert!(refused.to_string().contains("1.24.1"));
    assert!(orders(&held).is_empty());
}
