//! One listening address: accept, choose an endpoint in turn, copy both ways.
//!
//! A connection that finds no endpoint is held for [`HOLD`]. The proxy of a cluster would refuse
//! it; holding is kinder to a machine with few pods, where between one pod's end and the next one's
//! start there may be none for some milliseconds, and a client that waits is better off than one
//! that must know how to try again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::instants::Shift;

/// How long a connection waits for an endpoint. Below the connect timeout of common clients.
pub const HOLD: Duration = Duration::from_secs(5);
/// Pause between two rounds over endpoints that all refused.
const ROUND_PAUSE: Duration = Duration::from_millis(25);
/// Time for one endpoint to accept; on loopback only a full queue takes longer than a millisecond.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const _: () = assert!(CONNECT_TIMEOUT.as_millis() < HOLD.as_millis());

/// Endpoints of a port, as they are now.
pub type Backends = watch::Receiver<Arc<Vec<SocketAddr>>>;

/// Accepts on `listener` until dropped. Connections run on in `connections` until they end or
/// `stop` is asked for, whatever becomes of the listener or of their endpoint.
pub async fn listen(
    listener: TcpListener,
    backends: Backends,
    connections: TaskTracker,
    stop: CancellationToken,
) {
    let turn = Arc::new(AtomicUsize::new(0));
    loop {
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                // Out of descriptors, most likely: let some connections end.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ROUND_PAUSE).await;
                continue;
            }
        };
        let start = turn.fetch_add(1, Ordering::Relaxed);
        let carried = carry(client, backends.clone(), start);
        let stop = stop.clone();
        connections.spawn(async move {
            tokio::select! {
                () = carried => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn carry(mut client: TcpStream, backends: Backends, start: usize) {
    let Some(mut server) = connect(backends, start).await else {
        return;
    };
    // A pooler's messages are small and wait for answers. A socket that is gone already shows in
    // the copy.
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    // Each direction ends by itself, and what it has read is passed on first: a server that refuses
    // a certificate says so and hangs up, and the client that is still talking must hear it.
    let upwards = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
        let _ = to_server.shutdown().await;
    };
    let downwards = async {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::join!(upwards, downwards);
}

/// A connection to the first endpoint, from `start` on in turn, that accepts.
async fn connect(mut backends: Backends, start: usize) -> Option<TcpStream> {
    let deadline = Instant::now().plus(HOLD);
    loop {
        let list = backends.borrow_and_update().clone();
        for n in 0..list.len() {
            let address = list[(start.wrapping_add(n)) % list.len()];
            let attempt = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address));
            if let Ok(Ok(server)) = attempt.await {
                return Some(server);
            }
        }
        let again = if list.is_empty() {
            deadline
        } else {
            Instant::now().plus(ROUND_PAUSE)
        };
        tokio::select! {
            // The sender is gone with its Service.
            changed = backends.changed() => changed.ok()?,
            () = tokio::time::sleep_until(again.min(deadline)) => {}
        }
        if Instant::now() >= deadline {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::task::JoinSet;

    use super::*;

    struct Rig {
        address: SocketAddr,
        backends: watch::Sender<Arc<Vec<SocketAddr>>>,
        tasks: JoinSet<()>,
    }

    /// A listener in front of `backends`.
    async fn rig(backends: Vec<SocketAddr>) -> Rig {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = watch::channel(Arc::new(backends));
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(
            listener,
            receiver,
            TaskTracker::new(),
            CancellationToken::new(),
        ));
        Rig {
            address,
            backends: sender,
            tasks,
        }
    }

    /// A server that greets with `name`, reads to the end, and answers what it read.
    async fn server(rig: &mut JoinSet<()>, name: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        rig.spawn(async move {
            let mut sessions = JoinSet::new();
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                sessions.spawn(async move {
                    socket.write_all(name.as_bytes()).await.unwrap();
                    let mut text = Vec::new();
                    socket.read_to_end(&mut text).await.unwrap();
                    socket.write_all(&text).await.unwrap();
                });
            }
        });
        address
    }

    async fn greeting(address: SocketAddr) -> (TcpStream, String) {
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut name = [0_u8; 3];
        client.read_exact(&mut name).await.unwrap();
        (client, String::from_utf8(name.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn endpoints_take_turns_and_one_that_refuses_is_passed_over() {
        let mut rig = rig(Vec::new()).await;
        let one = server(&mut rig.tasks, "one").await;
        let two = server(&mut rig.tasks, "two").await;
        rig.backends.send_replace(Arc::new(vec![one, two]));
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(greeting(rig.address).await.1);
        }
        assert_eq!(seen, ["one", "two", "one", "two"]);

        let closed = {
            let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        rig.backends.send_replace(Arc::new(vec![closed, two]));
        for _ in 0..3 {
            assert_eq!(greeting(rig.address).await.1, "two");
        }
    }

    #[tokio::test]
    async fn a_connection_is_held_until_an_endpoint_comes() {
        let mut rig = rig(Vec::new()).await;
        let mut client = TcpStream::connect(rig.address).await.unwrap();
        let one = server(&mut rig.tasks, "one").await;
        rig.backends.send_replace(Arc::new(vec![one]));
        let mut name = [0_u8; 3];
        client.read_exact(&mut name).await.unwrap();
        assert_eq!(&name, b"one");
    }

    #[tokio::test]
    async fn the_last_words_of_a_server_reach_a_client_that_is_still_talking() {
        let rig = rig(Vec::new()).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        rig.backends.send_replace(Arc::new(vec![address]));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                // What the client says is never read, so closing resets the connection.
                let mut first = [0_u8; 1];
                socket.read_exact(&mut first).await.unwrap();
                socket.write_all(b"refused").await.unwrap();
            }
        });
        for _ in 0..50 {
            let mut client = TcpStream::connect(rig.address).await.unwrap();
            client.write_all(&[7; 4_000]).await.unwrap();
            let mut words = Vec::new();
            let _ = client.read_to_end(&mut words).await;
            assert_eq!(words, b"refused");
        }
    }

    #[tokio::test]
    async fn an_established_connection_outlives_its_endpoint_and_half_closes() {
        let mut rig = rig(Vec::new()).await;
        let one = server(&mut rig.tasks, "one").await;
        rig.backends.send_replace(Arc::new(vec![one]));
        let (mut client, _) = greeting(rig.address).await;
        rig.backends.send_replace(Arc::new(Vec::new()));
        client.write_all(b"still here").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "still here");
    }

    #[tokio::test]
    async fn a_held_connection_is_closed_when_its_service_goes() {
        let rig = rig(Vec::new()).await;
        let mut client = TcpStream::connect(rig.address).await.unwrap();
        // Accepting is another task's work: the sender must not be gone before it has begun.
        let mut byte = [0_u8; 1];
        let waiting = client.read(&mut byte);
        let closing = async {
            tokio::task::yield_now().await;
            drop(rig.backends);
        };
        let (read, ()) = tokio::join!(waiting, closing);
        assert_eq!(read.unwrap_or(0), 0);
    }
}
