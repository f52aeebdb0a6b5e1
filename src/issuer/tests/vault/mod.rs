//! Issuers that sign through Vault, against a small server that speaks the part of its API that
//! cert-manager uses.

mod strangers;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::core::v1::ServiceAccount;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::scene::{Scene, authority, now};
use crate::causes::chain;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::issuer::conformance::battery;
use crate::issuer::{IssuerError, Outcome, VaultNetworks};
use crate::local::apiserver::access::User;
use crate::names::ObjectRef;
use crate::pki::authority::CertificateAuthority;
use crate::pki::chain::{Expectation, KeyedChain};
use crate::pki::csr;
use crate::pki::key::KeyEncoding;
use crate::pki::profile::{LeafProfile, LeafUsage};
use crate::pki::testing::{key, serial, server};
use crate::retry::Retry;

const TOKEN: &str = "hvs.fair-winds";

struct FakeVault {
    url: String,
    ca_bundle: String,
    state: Arc<Answers>,
    _serving: JoinSet<()>,
}

struct Answers {
    ca: CertificateAuthority,
    /// Where tokens of ServiceAccounts are reviewed.
    kubernetes: Mutex<Option<kube::Client>>,
    /// What every call is answered with, instead.
    instead: Mutex<Option<(u16, &'static str)>>,
}

type Reply = (StatusCode, Json<Value>);

impl FakeVault {
    async fn start() -> Self {
        let state = Arc::new(Answers {
            ca: authority("Vault"),
            kubernetes: Mutex::new(None),
            instead: Mutex::new(None),
        });
        let router = Router::new()
            .route("/v1/pki/sign/{role}", post(sign))
            .route("/v1/auth/{method}/login", post(log_in))
            .with_state(Arc::clone(&state));
        let own = authority("Vault's own");
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let listener = TlsListener {
            tcp,
            acceptor: acceptor(&own),
        };
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            url: format!("https://localhost:{}", address.port()),
            ca_bundle: BASE64.encode(own.anchors().to_pem()),
            state,
            _serving: serving,
        }
    }

    /// `spec.vault` with that way to log in.
    fn spec(&self, auth: &Value) -> Value {
        json!({"vault": {
            "server": self.url, "path": "pki/sign/poolers", "namespace": "banks",
            "caBundle": self.ca_bundle, "auth": auth,
        }})
    }

    fn answer_instead(&self, status: u16, error: &'static str) {
        *self.state.instead.lock().unwrap() = Some((status, error));
    }
}

async fn sign(
    State(answers): State<Arc<Answers>>,
    Path(role): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Reply {
    if let Some(reply) = answers.instead() {
        return reply;
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if header("x-vault-token") != Some(TOKEN) || header("x-vault-namespace") != Some("banks") {
        return refusal(403, "permission denied");
    }
    let text = |field: &str| body[field].as_str().unwrap().to_owned();
    if role != "poolers" || text("common_name") == "pirate" {
        return refusal(400, "common name pirate not allowed by this role");
    }
    assert!(!body.to_string().contains("PRIVATE"), "a key was sent");
    let request = csr::read(&text("csr")).unwrap();
    let list = |field: &str| -> Vec<String> {
        let text = text(field);
        let values = text.split(',').filter(|value| !value.is_empty());
        values.map(str::to_owned).collect()
    };
    let lifetime = text("ttl").trim_end_matches('s').parse().unwrap();
    let profile = LeafProfile {
        dns_names: list("alt_names"),
        ip_addresses: list("ip_sans")
            .iter()
            .map(|ip| ip.parse().unwrap())
            .collect(),
        lifetime: time::Duration::seconds(lifetime),
        ..LeafProfile::new(LeafUsage::ServerAndClient, text("common_name"))
    };
    let issued = answers
        .ca
        .sign(&profile, &request.public_key, serial(6), now());
    let issued = issued.unwrap();
    let chain = issued.chain.to_pem();
    let blocks: Vec<&str> = chain
        .split_inclusive("-----END CERTIFICATE-----\n")
        .collect();
    let data = json!({
        "certificate": blocks[0],
        "issuing_ca": blocks[1],
        "ca_chain": [blocks[1], issued.anchors.to_pem()],
    });
    (StatusCode::OK, Json(json!({ "data": data })))
}

async fn log_in(
    State(answers): State<Arc<Answers>>,
    Path(method): Path<String>,
    Json(body): Json<Value>,
) -> Reply {
    if let Some(reply) = answers.instead() {
        return reply;
    }
    let known = match method.as_str() {
        "approle" => json!({"role_id": "purser", "secret_id": "hush"}),
        _ => json!({"role": "purser", "jwt": "signed.by.kubernetes"}),
    };
    let kubernetes = answers.kubernetes.lock().unwrap().clone();
    let is_known = match kubernetes {
        Some(client) => is_reviewed(client, &body).await,
        None => body == known,
    };
    if is_known {
        (
            StatusCode::OK,
            Json(json!({"auth": {"client_token": TOKEN}})),
        )
    } else {
        refusal(403, "invalid credentials")
    }
}

/// As Vault does it: the API server says whose token it is; the role is bound to an account.
async fn is_reviewed(client: kube::Client, body: &Value) -> bool {
    let review = serde_json::from_value(json!({
        "metadata": {},
        "spec": {"token": body["jwt"], "audiences": ["vault://treasury/mint"]},
    }));
    let reviews: kube::Api<TokenReview> = kube::Api::all(client);
    let answer = reviews
        .create(&kube::api::PostParams::default(), &review.unwrap())
        .await;
    let status = answer.unwrap().status.unwrap();
    let user = status.user.and_then(|user| user.username);
    body["role"] == "purser"
        && status.authenticated == Some(true)
        && user.as_deref() == Some("system:serviceaccount:treasury:ledger-issuer")
}

fn refusal(status: u16, error: &str) -> Reply {
    let status = StatusCode::from_u16(status).unwrap();
    (status, Json(json!({"errors": [error]})))
}

impl Answers {
    fn instead(&self) -> Option<Reply> {
        let instead = *self.instead.lock().unwrap();
        instead.map(|(status, error)| refusal(status, error))
    }
}

struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (socket, from) = self.tcp.accept().await.unwrap();
            // A client that does not trust us hangs up.
            if let Ok(stream) = self.acceptor.accept(socket).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

fn acceptor(ca: &CertificateAuthority) -> TlsAcceptor {
    let (profile, key) = (server(), key());
    let issued = ca
        .sign(&profile, key.public_key(), serial(5), now())
        .unwrap();
    let keyed = KeyedChain::from_parts(issued.chain, key, KeyEncoding::Pkcs8).unwrap();
    let verified = keyed.verify(&issued.anchors, &Expectation::of(&profile, now()));
    let data = verified.unwrap().into_secret_data();
    let chain = CertificateDer::pem_slice_iter(data.tls_crt.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(data.tls_key.expose().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn ask(scene: &Scene, profile: &LeafProfile) -> Outcome {
    scene
        .ask((None, "ledger-r1"), (profile, &key()), Clock::System)
        .await
}

fn failure(outcome: Outcome) -> IssuerError {
    match outcome {
        Outcome::Failed(error) => error,
        outcome @ (Outcome::Issued(_) | Outcome::Pending { .. } | Outcome::Denied { .. }) => {
            panic!("{outcome:?}")
        }
    }
}

#[tokio::test]
async fn a_vault_issuer_passes_the_battery() {
    let (scene, vault) = (Scene::new().await, FakeVault::start().await);
    let token = json!({"tokenSecretRef": {"name": "vault-token", "key": "it"}});
    scene
        .secret("vault-token", json!({"it": format!("{TOKEN}\n")}))
        .await;
    scene.issuer(vault.spec(&token)).await;
    let sign = async |profile: &LeafProfile, key: &_| {
        scene
            .ask((None, "ledger-r1"), (profile, key), Clock::System)
            .await
    };
    battery(now(), sign).await;
}

#[tokio::test]
async fn app_roles_and_service_accounts_log_in_and_wrong_ones_are_told() {
    let vault = FakeVault::start().await;
    let ways = [
        json!({"appRole": {"roleId": "purser", "secretRef": {"name": "login", "key": "good"}}}),
        json!({"kubernetes": {"role": "purser", "secretRef": {"name": "login"}}}),
        json!({"kubernetes": {
            "mountPath": "/v1/auth/elsewhere", "role": "purser", "secretRef": {"name": "login"},
        }}),
    ];
    for way in ways {
        let scene = Scene::new().await;
        let login = json!({"good": "hush", "token": "signed.by.kubernetes"});
        scene.secret("login", login).await;
        scene.issuer(vault.spec(&way)).await;
        let outcome = ask(&scene, &server()).await;
        assert!(matches!(outcome, Outcome::Issued(_)), "{outcome:?}");
    }
    let scene = Scene::new().await;
    scene.secret("login", json!({"bad": "guessed"})).await;
    let way =
        json!({"appRole": {"roleId": "purser", "secretRef": {"name": "login", "key": "bad"}}});
    scene.issuer(vault.spec(&way)).await;
    let error = failure(ask(&scene, &server()).await);
    assert_eq!(
        (error.reason(), error.retry()),
        ("IssuerRefused", Retry::WhenChanged)
    );
    let text = chain(&error);
    assert!(
        text.contains("403 to the login: invalid credentials"),
        "{text}"
    );
    assert!(!text.contains("guessed"), "{text}");
}

#[tokio::test]
async fn a_service_account_logs_in_with_a_token_of_its_own_that_the_api_server_vouches_for() {
    let (scene, vault) = (Scene::new().await, FakeVault::start().await);
    *vault.state.kubernetes.lock().unwrap() = Some(scene.cluster.client().clone());
    let way = json!({"kubernetes": {
        "role": "purser", "serviceAccountRef": {"name": "ledger-issuer", "audiences": ["more"]},
    }});
    scene.issuer(vault.spec(&way)).await;
    let error = failure(ask(&scene, &server()).await);
    let text = chain(&error);
    assert!(
        text.contains("the ServiceAccount treasury/ledger-issuer gets no token"),
        "{text}"
    );
    let account = |name: &str| -> ServiceAccount {
        let account = json!({"metadata": {"namespace": "treasury", "name": name}});
        serde_json::from_value(account).unwrap()
    };
    scene
        .cluster
        .create(&account("ledger-issuer"))
        .await
        .unwrap();
    let outcome = ask(&scene, &server()).await;
    assert!(matches!(outcome, Outcome::Issued(_)), "{outcome:?}");

    // Another account of the namespace gets a token, but not in.
    let scene = Scene::new().await;
    *vault.state.kubernetes.lock().unwrap() = Some(scene.cluster.client().clone());
    scene.cluster.create(&account("stowaway")).await.unwrap();
    let way = json!({"kubernetes": {"role": "purser", "serviceAccountRef": {"name": "stowaway"}}});
    scene.issuer(vault.spec(&way)).await;
    let text = chain(&failure(ask(&scene, &server()).await));
    assert!(text.contains("403 to the login"), "{text}");
}

#[tokio::test]
async fn answers_of_vault_are_told_apart() {
    let (scene, vault) = (Scene::new().await, FakeVault::start().await);
    scene.secret("vault-token", json!({"token": TOKEN})).await;
    scene
        .issuer(vault.spec(&json!({"tokenSecretRef": {"name": "vault-token"}})))
        .await;
    let pirate = LeafProfile::new(LeafUsage::Client, "pirate");
    let outcome = ask(&scene, &pirate).await;
    let Outcome::Denied { reason } = &outcome else {
        panic!("{outcome:?}")
    };
    assert!(
        reason.ends_with("common name pirate not allowed by this role"),
        "{reason}"
    );
    vault.answer_instead(503, "Vault is sealed");
    let outcome = ask(&scene, &server()).await;
    let Outcome::Pending { on } = &outcome else {
        panic!("{outcome:?}")
    };
    assert!(on.contains("is sealed"), "{on}");
    for (status, retry) in [
        (403, Retry::WhenChanged),
        (404, Retry::WhenChanged),
        (429, Retry::Backoff),
        (500, Retry::Backoff),
    ] {
        vault.answer_instead(status, "a reason");
        let error = failure(ask(&scene, &server()).await);
        assert_eq!(error.retry(), retry, "{status}");
        let text = chain(&error);
        assert!(
            text.contains(&format!("{status} to sign: a reason")),
            "{text}"
        );
    }
    drop(vault);
    let error = failure(ask(&scene, &server()).await);
    assert_eq!(
        (error.reason(), error.retry()),
        ("IssuerUnreachable", Retry::Backoff)
    );
}

#[tokio::test]
async fn a_vault_that_cannot_be_asked_says_what_is_wrong_with_the_issuer() {
    let vault = FakeVault::start().await;
    let token = json!({"tokenSecretRef": {"name": "vault-token"}});
    let good = vault.spec(&token);
    let change = |path: &str, value: Value| {
        let mut spec = good.clone();
        *spec.pointer_mut(path).unwrap() = value;
        spec
    };
    let stranger = BASE64.encode(authority("Stranger").anchors().to_pem());
    let cases = [
        (
            change("/vault/path", Value::Null),
            "spec.vault cannot be read",
        ),
        (
            change("/vault/server", json!("vault.example")),
            "write a URL",
        ),
        (change("/vault/auth", json!({})), "names no way to log in"),
        (
            change("/vault/caBundle", json!("bm8=")),
            "spec.vault.caBundle cannot be read",
        ),
        (
            change("/vault/caBundle", json!(stranger)),
            "cannot speak to https://localhost",
        ),
        (good.clone(), "the Secret treasury/vault-token has no token"),
    ];
    for (spec, text) in cases {
        let scene = Scene::new().await;
        if spec != good {
            scene.secret("vault-token", json!({"token": TOKEN})).await;
        }
        scene.issuer(spec).await;
        let message = chain(&failure(ask(&scene, &server()).await));
        assert!(message.starts_with("Issuer treasury/mint"), "{message}");
        assert!(message.contains(text), "{text} is not in: {message}");
    }
}
