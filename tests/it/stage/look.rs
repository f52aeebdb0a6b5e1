//! What a test sees on the stage.

use crate::support::eventually;
use bouncert::api::common::find_condition;
use bouncert::api::{PgBouncer, PgBouncerOpsRequest, Phase, RequestPhase};
use bouncert::pgbouncer::probe::{Served, probe};
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::ResourceExt;
use kube::api::ListParams;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::*;

impl Stage {
    pub(crate) async fn bouncer(&self, name: &str) -> PgBouncer {
        self.get(name).await.expect("the PgBouncer is there")
    }

    /// Waits until a PgBouncer is Ready.
    pub(crate) async fn ready(&self, name: &str) -> PgBouncer {
        eventually(LONG, async || {
            let bouncer = self.bouncer(name).await;
            let phase = bouncer.status.as_ref().and_then(|status| status.phase);
            if phase == Some(Phase::Ready) {
                Ok(bouncer)
            } else {
                Err(bouncer.status)
            }
        })
        .await
    }

    /// Waits until a request has ended.
    pub(crate) async fn ended(&self, name: &str) -> PgBouncerOpsRequest {
        eventually(LONG, async || {
            let request: PgBouncerOpsRequest = self.get(name).await.expect("the request is there");
            let phase = request.status.as_ref().and_then(|status| status.phase);
            if phase.is_some_and(RequestPhase::is_terminal) {
                Ok(request)
            } else {
                Err(request.status)
            }
        })
        .await
    }

    /// Waits until a request has ended well.
    pub(crate) async fn successful(&self, name: &str) -> PgBouncerOpsRequest {
        let request = self.ended(name).await;
        let status = request.status.as_ref().unwrap();
        assert_eq!(
            status.phase,
            Some(RequestPhase::Successful),
            "{name}: {status:#?}"
        );
        let pause = self.bouncer(&request.spec.database_ref.name).await;
        let conditions = pause.status.unwrap_or_default().conditions;
        assert!(
            find_condition(&conditions, "Paused").is_none(),
            "{name}: still paused"
        );
        request
    }

    /// Waits until a request has failed; the text of its Failed condition.
    pub(crate) async fn failed(&self, name: &str) -> String {
        let request = self.ended(name).await;
        let status = request.status.as_ref().unwrap();
        assert_eq!(
            status.phase,
            Some(RequestPhase::Failed),
            "{name}: {status:#?}"
        );
        find_condition(&status.conditions, "Failed")
            .expect("a Failed condition")
            .message
            .clone()
    }

    /// One key of a Secret, as text.
    pub(crate) async fn secret(&self, name: &str, key: &str) -> String {
        let secret: Secret = self
            .get(name)
            .await
            .unwrap_or_else(|| panic!("Secret {name} is missing"));
        let data = secret.data.unwrap_or_default();
        let value = data
            .get(key)
            .unwrap_or_else(|| panic!("Secret {name} has no {key}"));
        String::from_utf8(value.0.clone()).unwrap()
    }

    /// The rendered configuration of a PgBouncer, as a table of its `[pgbouncer]` section.
    pub(crate) async fn ini(&self, name: &str) -> std::collections::BTreeMap<String, String> {
        let uid = self.bouncer(name).await.uid().unwrap();
        let text = self
            .secret(
                &format!("{name}-{}", &uid[uid.len() - 6..]),
                "pgbouncer.ini",
            )
            .await;
        let section = text
            .split("[pgbouncer]")
            .nth(1)
            .expect("a [pgbouncer] section");
        let lines = section
            .lines()
            .take_while(|line| !line.trim_start().starts_with('['));
        lines
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
            .collect()
    }

    /// Where clients reach a PgBouncer.
    pub(crate) async fn service(&self, name: &str) -> SocketAddr {
        let service: Service = self.get(name).await.expect("the Service is there");
        let ip: IpAddr = service.spec.unwrap().cluster_ip.unwrap().parse().unwrap();
        SocketAddr::new(ip, 5432)
    }

    /// The pods of a PgBouncer that are there, with their addresses.
    pub(crate) async fn pods(&self, name: &str) -> Vec<(String, SocketAddr)> {
        let labels = format!("app.kubernetes.io/instance={name}");
        let pods = self
            .api::<Pod>()
            .list(&ListParams::default().labels(&labels))
            .await
            .unwrap();
        pods.items
            .into_iter()
            .filter_map(|pod| {
                let ip: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
                Some((pod.name_any(), SocketAddr::new(ip, 5432)))
            })
            .collect()
    }

    /// What every pod of a PgBouncer serves.
    pub(crate) async fn served(&self, name: &str) -> Vec<Served> {
        let mut served = Vec::new();
        for (_, address) in self.pods(name).await {
            served.push(probe(address, None, Duration::from_secs(5)).await.unwrap());
        }
        served
    }

    /// Runs `psql` through the Service of a PgBouncer as the tutorial's user does; what it printed,
    /// or what it complained about.
    pub(crate) async fn psql(&self, name: &str, options: &str) -> Result<String, String> {
        let address = self.service(name).await;
        let conninfo = format!(
            "host={name}.{NS}.svc hostaddr={} port={} user=postgres dbname=postgres \
             connect_timeout=20 {options}",
            address.ip(),
            address.port()
        );
        let output = tokio::process::Command::new("psql")
            .args(["-X", "-At", "-c", "SELECT 40 + 2", &conninfo])
            .env("PGPASSWORD", PASSWORD)
            .env("PGSSLCERT", "/nonexistent")
            .output()
            .await
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned())
        } else {
            Err(String::from_utf8(output.stderr).unwrap())
        }
    }

    /// The client material of a Secret as files; the connection options that use them.
    pub(crate) async fn client_files(&self, secret: &str) -> String {
        let directory = tempfile::tempdir_in(self.directory.path()).unwrap().keep();
        for key in ["ca.crt", "tls.crt", "tls.key"] {
            crate::support::write_private(&directory.join(key), &self.secret(secret, key).await);
        }
        let path = |name: &str| directory.join(name).display().to_string();
        format!(
            "sslrootcert={} sslcert={} sslkey={}",
            path("ca.crt"),
            path("tls.crt"),
            path("tls.key")
        )
    }
}
