//! A real Prometheus, which scrapes what the test says.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::text_of;
use crate::support::{eventually, free_port, own_address};

/// A running Prometheus with Bouncert's alerts, killed when dropped.
pub(crate) struct Prometheus {
    process: Child,
    address: SocketAddr,
    directory: TempDir,
}

/// An alert as Prometheus sees it.
#[derive(Debug)]
pub(crate) struct Alert {
    pub(crate) summary: String,
    /// When its expression became true.
    pub(crate) active_at: OffsetDateTime,
}

impl Prometheus {
    /// Scrapes `target` every two seconds. Of the alerts every minute of `for` is made a second, as
    /// users do whose certificates live for minutes.
    pub(crate) async fn start(target: &str) -> Self {
        let directory = TempDir::with_prefix("bouncert-prometheus-").unwrap();
        let mut alerts = text_of("deploy/prometheus/alerts.yaml");
        // The longest are about what lasts as long as a roll of the pods, which is not shorter here.
        for (minutes, seconds) in [(1, 1), (5, 5), (10, 40)] {
            let (long, short) = (format!("for: {minutes}m\n"), format!("for: {seconds}s\n"));
            alerts = alerts.replace(&long, &short);
        }
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let alerts = write("alerts.yaml", &alerts);
        let config = write(
            "prometheus.yaml",
            &format!(
                "global: {{ scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 1s }}\n\
                 rule_files: [{alerts}]\n\
                 scrape_configs:\n  - job_name: bouncert\n    honor_labels: true\n    \
                 static_configs: [{{ targets: ['{target}'] }}]\n"
            ),
        );
        let address = free_port(own_address());
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={config}"))
            .arg(format!("--web.listen-address={address}"))
            .arg("--storage.tsdb.path")
            .arg(directory.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus is installed");
        let prometheus = Self {
            process,
            address,
            directory,
        };
        eventually(Duration::from_secs(30), async || {
            match http_get(address, "/-/ready", "*/*").await {
                Ok(_) => Ok(()),
                Err(error) => Err((error, prometheus.log())),
            }
        })
        .await;
        prometheus
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// The values of a query now, in no order.
    pub(crate) async fn query(&self, query: &str) -> Vec<f64> {
        let query = query.bytes().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "%{byte:02x}");
            text
        });
        let answer = self.api(&format!("/api/v1/query?query={query}")).await;
        let samples = answer["data"]["result"].as_array().unwrap().iter();
        samples
            .map(|sample| sample["value"][1].as_str().unwrap().parse().unwrap())
            .collect()
    }

    /// The alerts that have fired within so many seconds.
    pub(crate) async fn fired(&self, seconds: u64) -> Vec<String> {
        // count_over_time(ALERTS{alertstate="firing"}[…])
        let query =
            format!("count_over_time%28ALERTS%7Balertstate%3D%22firing%22%7D%5B{seconds}s%5D%29");
        let answer = self.api(&format!("/api/v1/query?query={query}")).await;
        let samples = answer["data"]["result"].as_array().unwrap().iter();
        samples.map(|sample| sample["metric"].to_string()).collect()
    }

    /// The one value of a query; it waits until there is one.
    pub(crate) async fn one(&self, query: &str) -> f64 {
        eventually(Duration::from_secs(30), async || {
            match self.query(query).await.as_slice() {
                [only] => Ok(*only),
                other => Err((query.to_owned(), other.to_vec())),
            }
        })
        .await
    }

    /// Waits until a query has that value and no other.
    pub(crate) async fn shows(&self, query: &str, wanted: f64, bound: Duration) {
        eventually(bound, async || {
            let seen = self.query(query).await;
            if seen == [wanted] { Ok(()) } else { Err(seen) }
        })
        .await;
    }

    /// The names of the alerts that fire.
    pub(crate) async fn firing(&self) -> BTreeSet<String> {
        let alerts = self.api("/api/v1/alerts").await;
        let alerts = alerts["data"]["alerts"].as_array().unwrap().iter();
        alerts
            .filter(|alert| alert["state"] == "firing")
            .map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Waits until an alert fires.
    pub(crate) async fn fires(&self, name: &str, bound: Duration) -> Alert {
        eventually(bound, async || {
            let alerts = self.api("/api/v1/alerts").await;
            let all = alerts["data"]["alerts"].as_array().unwrap();
            let found = all
                .iter()
                .find(|alert| alert["labels"]["alertname"] == name && alert["state"] == "firing");
            let alert = found.ok_or_else(|| alerts.clone())?;
            let text = |path: &str| alert.pointer(path).unwrap().as_str().unwrap().to_owned();
            Ok::<_, Value>(Alert {
                summary: text("/annotations/summary"),
                active_at: OffsetDateTime::parse(&text("/activeAt"), &Rfc3339).unwrap(),
            })
        })
        .await
    }

    /// Waits until no alert fires.
    pub(crate) async fn is_quiet(&self, bound: Duration) {
        eventually(bound, async || {
            let firing = self.firing().await;
            if firing.is_empty() {
                Ok(())
            } else {
                Err(firing)
            }
        })
        .await;
    }

    async fn api(&self, path: &str) -> Value {
        let (_, body) = http_get(self.address, path, "*/*").await.unwrap();
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["status"], "success", "{answer}");
        answer
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _may_have_ended = self.process.kill();
        let _reaped = self.process.wait();
        if std::thread::panicking() {
            eprintln!("Prometheus logged:\n{}", self.log());
        }
    }
}

/// Gets a document over HTTP: its headers and its body; else the status line.
pub(crate) async fn http_get(
    address: SocketAddr,
    path: &str,
    accept: &str,
) -> Result<(String, String), String> {
    let told = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(address).await.map_err(told)?;
    // HTTP/1.0: the body ends with the connection.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(told)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(told)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 200 ") {
        return Err(status.to_owned());
    }
    Ok((head.to_owned(), body.to_owned()))
}
