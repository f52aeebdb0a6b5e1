//! A server that signs as Vault does, for whole daemons.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use bouncert::clock::Clock;
use bouncert::pki::authority::{CertificateAuthority, Serial};
use bouncert::pki::csr;
use bouncert::pki::key::{KeyAlgorithm, PrivateKey};
use bouncert::pki::profile::{CaProfile, LeafProfile, LeafUsage};
use serde_json::{Value, json};
use time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Where an answer holds a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Nowhere.
    NoKey,
    /// Behind the leaf.
    KeyAfterLeaf,
    /// Among the CAs.
    KeyInChain,
    /// In the field of `issue`.
    KeyInItsField,
}

pub(crate) struct Vault {
    pub(crate) url: String,
    answers: Arc<Answers>,
    _serving: JoinSet<()>,
}

struct Answers {
    ca: CertificateAuthority,
    /// The longest life that the role grants.
    max_ttl: Duration,
    holds: Holds,
    key: String,
    signed: AtomicUsize,
}

impl Vault {
    /// Starts a server whose answers hold `key` where `holds` says.
    pub(crate) async fn start(max_ttl: Duration, holds: Holds, key: &str) -> Self {
        let profile = CaProfile::new("Vault", Duration::days(30));
        let own = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let (serial, now) = (Serial::from_random([4; 20]), Clock::System.now());
        let answers = Arc::new(Answers {
            ca: CertificateAuthority::self_signed(&profile, own, serial, now).unwrap(),
            max_ttl,
            holds,
            key: key.to_owned(),
            signed: AtomicUsize::new(0),
        });
        let router = Router::new()
            .route("/v1/pki/sign/poolers", post(sign))
            .with_state(Arc::clone(&answers));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            url,
            answers,
            _serving: serving,
        }
    }

    /// The spec of an Issuer whose token is in the Secret `secret`.
    pub(crate) fn spec(&self, secret: &str) -> Value {
        json!({"vault": {
            "server": self.url, "path": "pki/sign/poolers",
            "auth": {"tokenSecretRef": {"name": secret, "key": "token"}},
        }})
    }

    /// How many certificates it has signed.
    pub(crate) fn signed(&self) -> usize {
        self.answers.signed.load(Ordering::SeqCst)
    }
}

async fn sign(State(answers): State<Arc<Answers>>, Json(body): Json<Value>) -> Json<Value> {
    let text = |field: &str| body[field].as_str().unwrap().to_owned();
    let list = |field: &str| -> Vec<String> {
        let text = text(field);
        let values = text.split(',').filter(|value| !value.is_empty());
        values.map(str::to_owned).collect()
    };
    let asked: i64 = text("ttl").trim_end_matches('s').parse().unwrap();
    let profile = LeafProfile {
        dns_names: list("alt_names"),
        ip_addresses: list("ip_sans")
            .iter()
            .map(|ip| ip.parse().unwrap())
            .collect(),
        lifetime: Duration::seconds(asked).min(answers.max_ttl),
        ..LeafProfile::new(LeafUsage::ServerAndClient, text("common_name"))
    };
    let request = csr::read(&text("csr")).unwrap();
    let n = answers.signed.fetch_add(1, Ordering::SeqCst);
    let serial = Serial::from_random([u8::try_from(n % 200).unwrap() + 7; 20]);
    let issued = answers
        .ca
        .sign(&profile, &request.public_key, serial, Clock::System.now())
        .unwrap();
    let (mut leaf, mut above) = (issued.chain.to_pem(), answers.ca.certificate_pem());
    let key = &answers.key;
    match answers.holds {
        Holds::KeyAfterLeaf => leaf.push_str(key),
        Holds::KeyInChain => above.push_str(key),
        Holds::NoKey | Holds::KeyInItsField => {}
    }
    let mut data = json!({"certificate": leaf, "issuing_ca": above, "ca_chain": [above]});
    if answers.holds == Holds::KeyInItsField {
        data["private_key"] = json!(key);
    }
    Json(json!({"data": data}))
}
