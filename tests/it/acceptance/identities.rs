//! Poolers of different namespaces under one `ClusterIssuer`, with logins by certificate: what one has
//! does not open the other.

use bouncert::api::annotations::ALLOWED_NAMESPACES;
use bouncert::clock::Clock;
use bouncert::pki::authority::{CertificateAuthority, Serial};
use bouncert::pki::key::{KeyAlgorithm, KeyEncoding, PrivateKey};
use bouncert::pki::profile::{LeafProfile, LeafUsage};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::stage::{NS, PASSWORD, Stage};
use crate::support::write_private;

/// The other tenant.
const OTHER: &str = "team-a";

/// A pooler whose clients log in by certificate.
fn pooler(namespace: &str, name: &str) -> Value {
    let ini = "[pgbouncer]\nauth_type = cert\n";
    json!({
        "apiVersion": "kubedb.com/v1", "kind": "PgBouncer",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "version": "1.18.0", "replicas": 1, "sslMode": "verify-full",
            "database": {
                "databaseName": "postgres", "databaseRef": {"name": "ha-postgres", "namespace": NS},
            },
            "connectionPool": {"maxDBConnections": 10, "maxUserConnections": 10},
            "configuration": {"inline": {"pgbouncer.ini": ini}},
            "tls": {"issuerRef": {"kind": "ClusterIssuer", "name": "company"}},
        },
    })
}

/// One CA for the whole cluster.
async fn company(stage: &Stage) -> CertificateAuthority {
    let (crt, key) = stage.openssl_pair("company", "/CN=company");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "company", "namespace": "cert-manager"},
        "stringData": {"tls.crt": crt, "tls.key": key},
    });
    stage.create(secret).await;
    let issuer = json!({
        "apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer",
        "metadata": {"name": "company"}, "spec": {"ca": {"secretName": "company"}},
    });
    stage.create(issuer).await;
    CertificateAuthority::load(&crt, &key, None).unwrap()
}

/// The files of a certificate Secret of any namespace, as connection options.
async fn files(stage: &Stage, namespace: &str, secret: &str) -> String {
    let secrets: Api<Secret> = Api::namespaced(stage.client.clone(), namespace);
    let data = secrets.get(secret).await.unwrap().data.unwrap();
    let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
    options(stage, &text("ca.crt"), &text("tls.crt"), &text("tls.key"))
}

fn options(stage: &Stage, ca: &str, crt: &str, key: &str) -> String {
    let directory = tempfile::tempdir_in(stage.directory.path()).unwrap().keep();
    let path = |name: &str| directory.join(name).display().to_string();
    for (name, text) in [("ca", ca), ("crt", crt), ("key", key)] {
        write_private(&directory.join(name), text);
    }
    format!(
        "sslrootcert={} sslcert={} sslkey={}",
        path("ca"),
        path("crt"),
        path("key")
    )
}

/// Logs in to the pooler `orders`, as that user to that database.
async fn login(
    stage: &Stage,
    (user, database): (&str, &str),
    options: &str,
) -> Result<String, String> {
    let sql = if database == "pgbouncer" {
        "SHOW VERSION"
    } else {
        "SELECT 40 + 2"
    };
    let address = stage.service("orders").await;
    let conninfo = format!(
        "host=orders.{NS}.svc hostaddr={} port={} user={user} dbname={database} connect_timeout=20 \
         sslmode=verify-full {options}",
        address.ip(),
        address.port()
    );
    let output = tokio::process::Command::new("psql")
        .args(["-X", "-w", "-At", "-c", sql, &conninfo])
        .env_remove("PGPASSWORD")
        .output()
        .await
        .unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    } else {
        Err(String::from_utf8(output.stderr).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn certificates_of_one_tenant_open_nothing_of_another_under_one_cluster_issuer() {
    let stage = Stage::start().await;
    let authority = company(&stage).await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OTHER}});
    stage.create(namespace).await;
    let word = json!({"metadata": {"annotations": {ALLOWED_NAMESPACES: OTHER}}});
    let namespaces: Api<Namespace> = Api::all(stage.client.clone());
    namespaces
        .patch(NS, &PatchParams::default(), &Patch::Merge(word))
        .await
        .unwrap();
    stage.create(pooler(NS, "orders")).await;
    // Their poolers are called as users are: the admin and the superuser.
    for name in ["pgbouncer", "postgres"] {
        stage.create(pooler(OTHER, name)).await;
    }
    stage.ready("orders").await;

    // One's own certificate, with one's own password, opens the console.
    let own = files(&stage, NS, "orders-client-cert").await;
    let password = stage.secret("orders-auth", "password").await;
    let admin = ("pgbouncer", "pgbouncer");
    let with_password = format!("{own} password={password}");
    login(&stage, admin, &with_password).await.unwrap();
    login(&stage, admin, &own).await.unwrap_err();
    // A certificate that names a user is that user.
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let profile = LeafProfile::new(LeafUsage::Client, "postgres");
    let (serial, now) = (Serial::from_random([7; 20]), Clock::System.now());
    let leaf = authority
        .sign(&profile, key.public_key(), serial, now)
        .unwrap();
    let ca = stage.secret("orders-client-cert", "ca.crt").await;
    let named = options(
        &stage,
        &ca,
        &leaf.chain.to_pem(),
        key.to_pem(KeyEncoding::Pkcs8).expose(),
    );
    let user = ("postgres", "postgres");
    assert_eq!(login(&stage, user, &named).await.unwrap(), "42");
    login(&stage, admin, &named).await.unwrap_err();

    for name in ["pgbouncer", "postgres"] {
        has_certificates(&stage, name).await;
        for alias in ["client", "server", "metrics-exporter"] {
            let theirs = files(&stage, OTHER, &format!("{name}-{alias}-cert")).await;
            for who in [admin, ("pgbouncer", "postgres"), user] {
                let refused = login(&stage, who, &theirs).await;
                assert!(refused.is_err(), "{name}-{alias} as {who:?}: {refused:?}");
            }
            let guessed = format!("{theirs} password={PASSWORD}");
            login(&stage, admin, &guessed).await.unwrap_err();
        }
    }

    // And requests are carried out as with any other way to log in.
    let rotate = json!({"rotateCertificates": true});
    stage
        .create(crate::stage::request("anew", "orders", rotate))
        .await;
    stage.successful("anew").await;
    let own = files(&stage, NS, "orders-client-cert").await;
    login(&stage, admin, &format!("{own} password={password}"))
        .await
        .unwrap();
    login(&stage, user, &named).await.unwrap();
    stage.stop().await;
}

/// Waits until a pooler of the other tenant has its certificates.
async fn has_certificates(stage: &Stage, name: &str) {
    let secrets: Api<Secret> = Api::namespaced(stage.client.clone(), OTHER);
    crate::support::eventually(crate::stage::LONG, async || {
        for alias in ["client", "server", "metrics-exporter"] {
            let found = secrets
                .get_opt(&format!("{name}-{alias}-cert"))
                .await
                .unwrap();
            found.ok_or(alias)?;
        }
        Ok::<(), &str>(())
    })
    .await;
}
