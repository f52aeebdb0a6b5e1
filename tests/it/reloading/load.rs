//! Clients of a pooler under change: some keep their session, others come anew for each transaction.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bouncert::pgbouncer::tls::{ClientTls, Connector, Identity};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_postgres::config::SslMode;
use tokio_util::sync::CancellationToken;

use crate::stage::{NS, PASSWORD, Stage};

/// A client's place, and the trust and certificate that its Secret has at each connection.
#[derive(Clone)]
pub(super) struct Customer {
    secrets: Api<Secret>,
    pooler: String,
    service: std::net::SocketAddr,
}

/// A logged-in connection.
pub(super) struct Connection {
    client: tokio_postgres::Client,
    _driver: JoinSet<()>,
}

/// What happened to everybody.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) committed: u64,
    /// Transactions whose `BEGIN` was acknowledged and whose `COMMIT` was not.
    pub(super) failed: Vec<String>,
    /// Sessions that were closed, and did not leave.
    pub(super) closed: Vec<String>,
    /// Connections that were not let in.
    pub(super) refused: Vec<String>,
    pub(super) longest: Duration,
}

/// Clients at work.
pub(super) struct Load {
    tally: Arc<Mutex<Tally>>,
    stop: CancellationToken,
    clients: JoinSet<()>,
}

impl Customer {
    pub(super) async fn of(stage: &Stage, pooler: &str) -> Self {
        Self {
            secrets: stage.api(),
            pooler: pooler.to_owned(),
            service: stage.service(pooler).await,
        }
    }

    /// The same, straight to a pod.
    pub(super) fn at(mut self, pod: std::net::SocketAddr) -> Self {
        self.service = pod;
        self
    }

    pub(super) async fn connect(&self) -> Result<Connection, String> {
        let secret = format!("{}-client-cert", self.pooler);
        let secret = self.secrets.get(&secret).await.map_err(|e| e.to_string())?;
        let data = secret.data.unwrap_or_default();
        let identity = Identity::from_pem(&data["tls.crt"].0, &data["tls.key"].0);
        let name = format!("{}.{NS}.svc", self.pooler);
        let tls = ClientTls::verify_full(&name, &data["ca.crt"].0, Some(identity.unwrap()));
        let stream = TcpStream::connect(self.service)
            .await
            .map_err(|e| e.to_string())?;
        let (client, connection) = tokio_postgres::Config::new()
            .user("postgres")
            .password(PASSWORD)
            .dbname("postgres")
            .ssl_mode(SslMode::Require)
            .connect_raw(stream, Connector(Some(tls.unwrap())))
            .await
            .map_err(|e| format!("{e:?}"))?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let _ended = connection.await;
        });
        Ok(Connection {
            client,
            _driver: driver,
        })
    }
}

impl Connection {
    pub(super) async fn run(&self, sql: &str) -> Result<(), String> {
        self.client
            .batch_execute(sql)
            .await
            .map_err(|e| format!("{e:?}"))
    }
}

impl Load {
    /// So many clients keep their session, and so many come for each transaction. Everybody that
    /// keeps one has it when this returns.
    pub(super) async fn start(customer: &Customer, keep: usize, come: usize) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let stop = CancellationToken::new();
        let mut clients = JoinSet::new();
        for _ in 0..keep {
            let connection = customer.connect().await.expect("lets in");
            connection.run("SELECT 1").await.expect("serves");
            let (tally, stop) = (tally.clone(), stop.clone());
            clients.spawn(async move {
                while !stop.is_cancelled() {
                    if let Err(why) = transaction(&connection, &tally).await {
                        tally.lock().unwrap().closed.push(why);
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(15)).await;
                }
            });
        }
        for _ in 0..come {
            let (customer, tally, stop) = (customer.clone(), tally.clone(), stop.clone());
            clients.spawn(async move {
                while !stop.is_cancelled() {
                    match customer.connect().await {
                        Ok(connection) => drop(transaction(&connection, &tally).await),
                        Err(why) => tally.lock().unwrap().refused.push(why),
                    }
                    tokio::time::sleep(Duration::from_millis(25)).await;
                }
            });
        }
        Self {
            tally,
            stop,
            clients,
        }
    }

    /// What has happened so far.
    pub(super) fn so_far(&self) -> Tally {
        self.tally.lock().unwrap().clone()
    }

    /// Lets everybody finish.
    pub(super) async fn stop(mut self) -> Tally {
        self.stop.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        self.so_far()
    }
}

impl Tally {
    /// Nobody noticed anything.
    pub(super) fn assert_unnoticed(&self) {
        assert!(self.committed > 0, "{self:?}");
        let noticed = [&self.failed, &self.closed, &self.refused];
        assert!(noticed.iter().all(|list| list.is_empty()), "{self:?}");
    }
}

async fn transaction(connection: &Connection, tally: &Mutex<Tally>) -> Result<(), String> {
    let began = Instant::now();
    connection.run("BEGIN").await?;
    let work = async {
        connection.run("INSERT INTO sales VALUES (1)").await?;
        connection.run("COMMIT").await
    };
    let done = work.await;
    let mut tally = tally.lock().unwrap();
    match &done {
        Ok(()) => {
            tally.committed += 1;
            tally.longest = tally.longest.max(began.elapsed());
        }
        Err(why) => tally.failed.push(why.clone()),
    }
    done
}
