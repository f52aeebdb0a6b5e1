//! The accept loop of the admin server: how many connections there may be, and how long each part of
//! one may take. A client that is slow, silent or greedy takes nothing from the others.
//!
//! Whether the daemon lives and is ready is answered when all places are taken, too, or a kubelet would
//! end a daemon whose places strangers hold. A connection without a place is asked what it wants
//! ([`Bounds::spare`] at a time, and the oldest makes room for a new one), and refused if it is anything
//! else.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Pause after the system refuses to accept, usually for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Answers under way get this long after the server is told to stop.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(1);
/// A refusal that the peer does not take within this time is not told.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// How a request begins that is answered in any case.
const HEALTH: [&[u8]; 2] = [b"GET /livez ", b"GET /readyz "];
/// How long a connection without a place may take to say what it wants, and to take the answer.
const ASKED_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is looked whether more of a question has come.
const ASKED_PAUSE: Duration = Duration::from_millis(20);
/// Longest head of a request: Prometheus sends half a kilobyte.
const HEAD_MAX: usize = 16 * 1_024;

/// The bounds of the admin server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Connections at once. Two Prometheuses, a kubelet and a few people need a dozen.
    pub(super) connections: usize,
    /// The same from one address, so that one client cannot take them all.
    pub(super) connections_of_a_peer: usize,
    /// Connections without a place that are asked what they want.
    pub(super) spare: usize,
    /// How long a request's head may take, and how long a connection may wait for one.
    pub(super) head: Duration,
    /// How long a connection may last. A metrics answer of a large fleet takes a second; a reader
    /// that takes longer than this is cut, and Prometheus connects again.
    pub(super) life: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 256,
            connections_of_a_peer: 32,
            spare: 64,
            head: Duration::from_secs(10),
            life: Duration::from_secs(60),
        }
    }
}

/// The connections that there are.
#[derive(Debug, Default)]
struct Guests {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// One connection's place; it is free again when this is dropped.
#[derive(Debug)]
struct Place {
    guests: Arc<Mutex<Guests>>,
    peer: IpAddr,
}

impl Place {
    /// A place for a connection from `peer`, or the reason why there is none.
    fn take(
        guests: &Arc<Mutex<Guests>>,
        bounds: Bounds,
        peer: IpAddr,
    ) -> Result<Self, &'static str> {
        let mut all = guests.lock().unwrap_or_else(PoisonError::into_inner);
        if all.all >= bounds.connections {
            return Err("the admin server has as many connections as it serves; try again later\n");
        }
        let own = all.of.get(&peer).copied().unwrap_or_default();
        if own >= bounds.connections_of_a_peer {
            return Err("this address has as many connections as one may have; close some\n");
        }
        all.all += 1;
        all.of.insert(peer, own + 1);
        drop(all);
        Ok(Self {
            guests: Arc::clone(guests),
            peer,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        all.all = all.all.saturating_sub(1);
        if let Some(own) = all.of.get_mut(&self.peer) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                all.of.remove(&self.peer);
            }
        }
    }
}

/// Answers with `router` until told to stop.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    stop: CancellationToken,
) {
    let guests = Arc::default();
    let mut open = JoinSet::new();
    let mut spare: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = open.join_next(), if !open.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((socket, peer)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        match Place::take(&guests, bounds, canonical(peer)) {
            Ok(place) => {
                let (router, stop) = (router.clone(), stop.clone());
                open.spawn(async move {
                    answer(socket, router, bounds, stop).await;
                    drop(place);
                });
            }
            Err(why) => {
                tracing::debug!(%peer, why, "no place for a connection");
                spare.retain(|asked| !asked.is_finished());
                if spare.len() >= bounds.spare
                    && let Some(oldest) = spare.pop_front()
                {
                    oldest.abort();
                }
                let (router, stop) = (router.clone(), stop.clone());
                spare.push_back(open.spawn(async move {
                    if asks_for_health(&socket).await {
                        let life = ASKED_TIMEOUT;
                        let bounds = Bounds { life, ..bounds };
                        answer(socket, router, bounds, stop).await;
                    } else {
                        refuse(socket, why).await;
                    }
                }));
            }
        }
    }
    drop(listener);
    let closing = async { while open.join_next().await.is_some() {} };
    if timeout(CLOSING_TIMEOUT, closing).await.is_err() {
        open.shutdown().await;
    }
}

/// Serves one connection until it ends, its time is over, or the server stops.
async fn answer(socket: TcpStream, router: Router, bounds: Bounds, stop: CancellationToken) {
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(error = &error as &dyn std::error::Error, "connection failed");
            }
            return;
        }
        () = sleep(bounds.life) => {}
        () = stop.cancelled() => {}
    }
    // An answer under way is finished, if it is taken.
    connection.as_mut().graceful_shutdown();
    let _cut = timeout(CLOSING_TIMEOUT, connection).await;
}

/// Whether a peer begins with a question that is answered in any case. Nothing is taken of what it sends.
async fn asks_for_health(socket: &TcpStream) -> bool {
    let longest = HEALTH.iter().map(|question| question.len()).max();
    let mut head = vec![0; longest.unwrap_or_default()];
    let asked = async {
        loop {
            let Ok(length @ 1..) = socket.peek(&mut head).await else {
                return false;
            };
            let said = &head[..length];
            if HEALTH.iter().any(|question| said.starts_with(question)) {
                return true;
            }
            if !HEALTH.iter().any(|question| question.starts_with(said)) {
                return false;
            }
            // What has come is there until it is taken, so more of it is waited for by time.
            sleep(ASKED_PAUSE).await;
        }
    };
    timeout(ASKED_TIMEOUT, asked).await.unwrap_or_default()
}

/// Says why there is no place, and closes.
async fn refuse(mut socket: TcpStream, why: &'static str) {
    let length = why.len();
    let text = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\nretry-after: 10\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{why}"
    );
    let told = async {
        socket.write_all(text.as_bytes()).await?;
        socket.shutdown().await
    };
    let _told = timeout(REFUSAL_TIMEOUT, told).await;
}

/// A peer's address, the same for IPv4 on a socket of both families.
const fn canonical(peer: SocketAddr) -> IpAddr {
    peer.ip().to_canonical()
}
