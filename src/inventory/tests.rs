//! What the inventory makes of objects, and what people and Prometheus see of it.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, Secret};
use prometheus_client::encoding::text::encode;
use serde_json::{Value, json};

use super::facts::{Names, Pooler, Replica, Request, Stored};
use super::state::Seen;
use super::*;
use crate::api::{PgBouncer, PgBouncerOpsRequest};
use crate::blueprint::testing::tls_bouncer;
use crate::clock::computed;
use crate::cluster::Mirror;
use crate::names::Alias;
use crate::panics::InternalErrors;
use crate::pki::authority::CertificateAuthority;
use crate::pki::testing::{NOW, key, root, serial, server};

fn at(name: &str) -> ObjectRef {
    ObjectRef::new("shop", name)
}

/// A PgBouncer with the three certificates that defaulting gives it.
fn bouncer(name: &str) -> PgBouncer {
    let mut bouncer = tls_bouncer(name);
    bouncer.spec.ssl_mode = Some(crate::api::SslMode::VerifyFull);
    bouncer.spec.tls.as_mut().unwrap().certificates = Alias::ALL
        .map(|alias| {
            let secret = format!("{name}-{alias}-cert");
            let entry = json!({ "alias": alias.as_str(), "secretName": secret });
            serde_json::from_value(entry).unwrap()
        })
        .to_vec();
    bouncer
}

/// A Secret with a certificate of that number, issued at [`NOW`] for 90 days.
fn secret(name: &str, ca: &CertificateAuthority, number: u8) -> Secret {
    let signed = ca.sign(&server(), key().public_key(), serial(number), NOW);
    let pem = signed.unwrap().chain.to_pem();
    let mut secret: Secret = serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "shop",
            "annotations": { "bouncert.dev/revision": number.to_string() },
        },
    }))
    .unwrap();
    let data = secret.data.get_or_insert_default();
    data.insert("tls.crt".to_owned(), ByteString(pem.into_bytes()));
    secret
}

fn request(name: &str, phase: &str, conditions: &Value) -> PgBouncerOpsRequest {
    serde_json::from_value(json!({
        "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PgBouncerOpsRequest",
        "metadata": { "name": name, "namespace": "shop" },
        "spec": { "type": "ReconfigureTLS", "databaseRef": { "name": "ledger" } },
        "status": { "phase": phase, "conditions": conditions },
    }))
    .unwrap()
}

fn condition(type_: &str, at: &str) -> Value {
    json!({ "type": type_, "status": "True", "lastTransitionTime": at, "message": "the CA slept" })
}

fn pod(name: &str, pooler: &str, ip: Option<&str>) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "shop",
            "labels": {
                "app.kubernetes.io/name": "pgbouncers.kubedb.com",
                "app.kubernetes.io/instance": pooler,
            },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "StatefulSet", "name": pooler, "uid": pooler,
                "controller": true,
            }],
        },
        "status": { "podIP": ip },
    }))
    .unwrap()
}

/// A small fleet: `ledger` with two pods, of which one serves its former certificate and one cannot
/// be reached; a request that failed after one that succeeded; no exporter certificate.
fn fleet() -> State {
    let ca = root("Notary");
    let mut names = Names::default();
    let mut stored = |alias: Alias, number| {
        let name = format!("ledger-{alias}-cert");
        let stored = Stored::of(&secret(&name, &ca, number), &mut names).unwrap();
        (at(&name), stored)
    };
    let former = stored(Alias::Server, 6).1.leaf;
    let replica = |name, ip| {
        let replica = Replica::of(&pod(name, "ledger", Some(ip)));
        (at(name), replica.unwrap())
    };
    let mut ledger = bouncer("ledger");
    let paused = condition("Paused", "2031-04-05T06:00:00Z");
    ledger.status = serde_json::from_value(json!({ "conditions": [paused] })).unwrap();
    let requests = [
        request(
            "first",
            "Successful",
            &json!([condition("Successful", "2031-04-05T05:00:00Z")]),
        ),
        request(
            "second",
            "Failed",
            &json!([
                condition("UndoFailed", "2031-04-05T05:59:00Z"),
                condition("Failed", "2031-04-05T06:00:00Z"),
            ]),
        ),
        request(
            "third",
            "Progressing",
            &json!([condition("ReconfigureTLS", "2031-04-05T06:01:00Z")]),
        ),
    ];
    let sighting = |seen| Sighting { at: NOW, seen };
    State {
        class: None,
        poolers: Mirror::of([(at("ledger"), Pooler::of(&ledger))]),
        secrets: Mirror::of([stored(Alias::Server, 7), stored(Alias::Client, 8)]),
        replicas: Mirror::of([
            replica("ledger-0", "10.0.0.7"),
            replica("ledger-1", "10.0.0.8"),
        ]),
        requests: Mirror::of(requests.iter().map(|request| {
            (
                at(&request.metadata.name.clone().unwrap()),
                Request::of(request),
            )
        })),
        sightings: [
            (at("ledger-0"), sighting(Seen::Leaf(former))),
            (
                at("ledger-1"),
                sighting(Seen::Nothing("nobody there".into())),
            ),
        ]
        .into(),
    }
}

/// An inventory of which every metric has a sample.
pub(crate) fn example() -> Inventory {
    let inventory = Inventory {
        state: Arc::new(RwLock::new(fleet())),
        clock: Clock::Fixed(NOW),
        options: InventoryOptions {
            cert_manager_metrics: CertManagerMetrics::Served,
            ..InventoryOptions::default()
        },
        looks: LookMetrics::default(),
        errors: InternalErrors::default(),
    };
    inventory.looks.count(&Seen::Plaintext);
    inventory
}

#[test]
fn a_row_tells_what_is_stored_what_each_pod_serves_and_how_the_last_requests_went() {
    let fleet = fleet();
    let view = fleet.view();
    let rows: Vec<Certificate<'_>> = view.certificates().collect();
    let [server, client, exporter] = &rows[..] else {
        panic!("{rows:#?}");
    };
    assert_eq!((server.alias, server.revision), ("server", Some(7)));
    assert_eq!(server.issuer, "Issuer/notary");
    assert_eq!(server.signed_by, Some("CN=Notary"));
    assert!(server.renews_at < server.not_after);
    assert_eq!(server.served_by, Some(Served { pods: 0, of: 2 }));
    assert_eq!(server.served[0].matches, Some(false));
    assert_ne!(server.served[0].fingerprint, server.fingerprint);
    assert_eq!(server.served[1].matches, None);
    assert_eq!(server.served[1].trouble, Some("nobody there"));
    let failure = server.last_failure.unwrap();
    assert_eq!(
        (failure.request, failure.message),
        ("second", "the CA slept")
    );
    assert!(server.last_rotation.unwrap() < failure.at);
    assert_eq!((client.revision, client.served_by), (Some(8), None));
    assert_eq!((exporter.serial, exporter.renews_at), (None, None));
}

#[test]
fn metrics_tell_the_same_and_cert_managers_only_when_asked_for() {
    let text = |inventory: &Inventory| {
        let mut registry = Registry::default();
        inventory.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    };
    let mut inventory = example();
    let shown = text(&inventory);
    let pooler = "namespace=\"shop\",pgbouncer=\"ledger\"";
    let server = format!("{pooler},alias=\"server\"");
    for line in [
        format!("bouncert_served_certificate_matches{{{server},pod=\"ledger-0\"}} 0\n"),
        format!("bouncert_probe_success{{{server},pod=\"ledger-0\"}} 1\n"),
        format!("bouncert_probe_success{{{server},pod=\"ledger-1\"}} 0\n"),
        format!("bouncert_certificate_revision{{{server}}} 7\n"),
        format!("bouncert_certificate_ready{{{pooler},alias=\"metrics-exporter\"}} 0\n"),
        format!("bouncert_pgbouncer_undo_failed_requests{{{pooler}}} 1\n"),
        format!("bouncert_pgbouncer_paused_timestamp_seconds{{{pooler}}} 1933135200\n"),
        format!("bouncert_pgbouncer_request_timestamp_seconds{{{pooler}}} 1933135260\n"),
        "bouncert_requests{type=\"ReconfigureTLS\",phase=\"Failed\"} 1\n".to_owned(),
        "bouncert_probes_total{outcome=\"plaintext\"} 1\n".to_owned(),
    ] {
        assert!(shown.contains(&line), "no {line} in\n{shown}");
    }
    let absent = "bouncert_served_certificate_matches{namespace=\"shop\",pgbouncer=\"ledger\",\
                  alias=\"server\",pod=\"ledger-1\"}";
    assert!(!shown.contains(absent), "nothing was seen of that pod");
    let expires = "certmanager_certificate_expiration_timestamp_seconds{\
                   name=\"ledger-server-cert\",namespace=\"shop\",issuer_name=\"notary\",\
                   issuer_kind=\"Issuer\",issuer_group=\"cert-manager.io\"}";
    assert!(shown.contains(expires), "{shown}");
    inventory.options.cert_manager_metrics = CertManagerMetrics::Left;
    assert!(!text(&inventory).contains("certmanager_"));
}

#[test]
fn a_revision_a_stranger_and_a_pod_on_its_way_out_are_left_out() {
    let mut names = Names::default();
    let mut revision = secret("ledger-server-cert-r7", &root("Notary"), 7);
    revision.metadata.labels = Some([("bouncert.dev/is-revision".into(), "true".into())].into());
    assert_eq!(Stored::of(&revision, &mut names), None);
    assert_eq!(Stored::of(&Secret::default(), &mut names), None);
    assert_eq!(Replica::of(&Pod::default()), None);
    let mut foreign = pod("ledger-0", "ledger", Some("10.0.0.1"));
    foreign.metadata.owner_references = None;
    assert_eq!(Replica::of(&foreign), None, "labels are anybody's");
    assert_eq!(Replica::of(&pod("ledger-0", "ledger", None)), None);
    let mut leaving = pod("ledger-0", "ledger", Some("10.0.0.7"));
    leaving.metadata.deletion_timestamp =
        serde_json::from_value(json!("2031-04-05T06:07:08Z")).unwrap();
    assert_eq!(Replica::of(&leaving), None);
}

#[test]
fn fifteen_thousand_certificates_are_told_well_within_the_time_that_prometheus_waits() {
    let (mut poolers, mut secrets) = (Vec::new(), Vec::new());
    let mut names = Names::default();
    let kept = Stored::of(&secret("s", &root("Notary"), 7), &mut names).unwrap();
    for n in 0..5_000 {
        let name = format!("ledger-{n:04}");
        let facts = Pooler::of(&bouncer(&name));
        for asked in &facts.asked {
            secrets.push((at(&asked.secret), kept.clone()));
        }
        poolers.push((at(&name), facts));
    }
    let inventory = Inventory {
        state: Arc::new(RwLock::new(State {
            poolers: Mirror::of(poolers),
            secrets: Mirror::of(secrets),
            ..State::default()
        })),
        ..example()
    };
    let mut registry = Registry::default();
    inventory.register(&mut registry);
    let began = computed();
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    assert!(text.lines().count() > 15_000 * 5);
    // Ten seconds is Prometheus' default; even unoptimised it is far below.
    let took = computed().saturating_sub(began);
    assert!(took < Duration::from_secs(10), "{took:?}");
}
