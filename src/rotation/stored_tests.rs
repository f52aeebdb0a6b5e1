//! Tests of what is stored: facts, drift and what is told, from objects and without a cluster.

use kube::ResourceExt;
use serde_json::json;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::drift::{Drift, SecretFacts, Served};
use super::facts::{Freeze, Remedy, Standing, Window};
use super::fleet::Fleet;
use super::index::{Index, Kind, Known};
use super::limits::Limits;
use super::tell;
use crate::api::annotations::{FREEZE_ROTATION, MAINTENANCE_WINDOW};
use crate::api::{PgBouncer, PgBouncerOpsRequest};
use crate::blueprint::certificates::LoadBalancer;
use crate::blueprint::defaults::{IssuerKind, complete};
use crate::blueprint::testing::tls_bouncer;
use crate::names::{Alias, Area, Fingerprint, ObjectRef};

const NOW: OffsetDateTime = datetime!(2031-06-04 12:00 UTC);

fn at() -> ObjectRef {
    ObjectRef::new("shop", "billing")
}

fn print(number: u8) -> Fingerprint {
    Fingerprint::from_sha256([number; 32])
}

fn bouncer() -> PgBouncer {
    let mut bouncer = tls_bouncer("billing");
    bouncer.spec = complete(&bouncer.spec, "billing", IssuerKind::Private);
    bouncer.status = serde_json::from_value(json!({
        "phase": "Ready",
        "conditions": [{
            "type": "Provisioned", "status": "True",
            "lastTransitionTime": "2031-01-01T00:00:00Z",
        }],
    }))
    .unwrap();
    bouncer
}

/// What Bouncert published: leaf 1, signed by CA 9.
fn sound() -> SecretFacts {
    let issued = NOW - Duration::days(10);
    SecretFacts {
        life: Some((issued, issued + Duration::days(90))),
        leaf: Some(print(1)),
        published: Some(print(1)),
        server_auth: true,
        client_auth: true,
        all: [print(1), print(9)].into(),
        revision: Some(4),
        ..SecretFacts::default()
    }
}

fn secret(alias: &str) -> ObjectRef {
    ObjectRef::new("shop", format!("billing-{alias}-cert"))
}

/// A PgBouncer of which everything is as it was left.
fn index() -> Index {
    let mut index = Index::new(None);
    index.set_bouncer(bouncer());
    for alias in ["server", "client", "metrics-exporter"] {
        assert_eq!(index.set_secret(&secret(alias), Some(sound())), [at()]);
    }
    let ca = ObjectRef::new("shop", "notary-ca");
    index.set_issuer(
        "Issuer",
        &ObjectRef::new("shop", "notary"),
        Some(ca.clone()),
    );
    let authority = SecretFacts {
        leaf: Some(print(9)),
        ..SecretFacts::default()
    };
    assert_eq!(index.set_secret(&ca, Some(authority)), [at()]);
    index
}

fn reasons(known: &Known) -> Vec<&'static str> {
    known.drift.iter().map(Drift::reason).collect()
}

fn known(index: &mut Index) -> Known {
    index.known(&at(), NOW).unwrap()
}

fn request(name: &str, phase: &str, more: &serde_json::Value) -> PgBouncerOpsRequest {
    let mut request = json!({
        "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PgBouncerOpsRequest",
        "metadata": {
            "name": name, "namespace": "shop", "creationTimestamp": "2031-06-04T11:00:00Z",
            "labels": { "bouncert.dev/created-by": "rotation" },
        },
        "spec": {
            "databaseRef": { "name": "billing" }, "type": "ReconfigureTLS",
            "tls": { "rotateCertificates": true },
        },
        "status": { "phase": phase, "conditions": [{
            "type": phase, "status": "True", "lastTransitionTime": "2031-06-04T11:05:00Z",
        }]},
    });
    json_patch::merge(&mut request, more);
    serde_json::from_value(request).unwrap()
}

#[test]
fn what_is_as_it_was_left_makes_facts_and_no_drift() {
    let mut index = index();
    let Known {
        facts,
        drift,
        malformed,
        wanted,
    } = known(&mut index);
    assert_eq!((drift, malformed, wanted.len()), (vec![], vec![], 3));
    assert_eq!(facts.certificates.len(), 3);
    assert_eq!((facts.next_revision(), facts.standing), (5, Standing::Fit));
    assert_eq!(
        (facts.window, facts.freeze, facts.wish),
        (Window::Always, Freeze::None, None)
    );
    // The same once more is no news.
    assert!(
        index
            .set_secret(&secret("server"), Some(sound()))
            .is_empty()
    );
}

#[test]
fn each_kind_of_drift_is_told_apart_and_only_some_ask_for_a_request() {
    let after = |change: &dyn Fn(&mut SecretFacts)| {
        let mut index = index();
        let mut facts = sound();
        change(&mut facts);
        index.set_secret(&secret("server"), Some(facts));
        known(&mut index)
    };

    let broken = after(&|facts| facts.unsound = Some("the key does not fit".to_owned()));
    assert_eq!(
        (reasons(&broken), broken.facts.wish),
        (vec!["SecretUnsound"], None)
    );
    // Another leaf: it has to carry the wanted names.
    let nameless = after(&|facts| facts.leaf = Some(print(2)));
    assert!(
        matches!(&nameless.drift[..], [Drift::Unsound(Alias::Server, why)] if why.contains("lacks the names"))
    );
    let names = known(&mut index()).wanted[0].profile.dns_names.clone();
    let adopted = after(&|facts| {
        facts.leaf = Some(print(2));
        facts.dns_names = names.clone();
    });
    assert_eq!(
        (reasons(&adopted), adopted.facts.wish),
        (vec!["SecretAdopted"], None)
    );
    let expired = after(&|facts| {
        facts.leaf = Some(print(2));
        facts.dns_names = names.clone();
        facts.life = Some((NOW - Duration::days(9), NOW));
    });
    assert_eq!(reasons(&expired), ["SecretUnsound"]);
    // Whatever else it may be used for, the server's must do for a server.
    let alien = |server_auth, client_auth| {
        let alien = after(&|facts| {
            facts.leaf = Some(print(2));
            facts.dns_names = names.clone();
            (facts.server_auth, facts.client_auth) = (server_auth, client_auth);
        });
        reasons(&alien)
    };
    assert_eq!(alien(true, false), ["SecretAdopted"]);
    assert_eq!(alien(false, true), ["SecretUnsound"]);
    let owned = after(&|facts| facts.owner = Some("Certificate billing".to_owned()));
    assert_eq!(reasons(&owned), ["SecretOwnedByOther"]);
    assert_eq!(owned.facts.standing, Standing::RenewedByOthers);
    let renewed = after(&|facts| facts.all = [print(1), print(8)].into());
    assert_eq!(reasons(&renewed), ["CaRenewed"]);
    assert_eq!(renewed.facts.wish.unwrap().remedy, Remedy::Rotate);

    let mut index = index();
    index.set_secret(&secret("client"), None);
    assert_eq!(reasons(&known(&mut index)), ["SecretMissing"]);
}

#[test]
fn a_pod_that_serves_something_else_is_restarted_but_not_into_something_broken() {
    let mut index = index();
    let pods = [
        ("billing-0".to_owned(), Some(print(7))),
        ("billing-1".to_owned(), Some(print(1))),
    ];
    let served = Served {
        pods: pods.into(),
        astray_since: Some(NOW),
    };
    index.set_served(&at(), served.clone());
    let wish = known(&mut index).facts.wish.unwrap();
    assert_eq!(wish.remedy, Remedy::Restart);
    assert!(wish.why.starts_with("billing-0 serve"), "{}", wish.why);
    let broken = SecretFacts {
        unsound: Some("no key".to_owned()),
        ..sound()
    };
    index.set_secret(&secret("server"), Some(broken));
    assert_eq!(known(&mut index).facts.wish, None);
    // What was seen before a request is not true any more afterwards.
    index.set_secret(&secret("server"), Some(sound()));
    index.set_request(&request("by-hand", "Progressing", &json!({})));
    assert_eq!(known(&mut index).facts.live.as_deref(), Some("by-hand"));
    index.remove_request(&ObjectRef::new("shop", "by-hand"));
    assert_eq!(known(&mut index).facts.wish, None);
}

#[test]
fn failures_are_counted_in_the_requests_themselves_and_only_in_our_own() {
    let mut index = index();
    let attempt =
        |n: u8| json!({ "metadata": { "annotations": { "bouncert.dev/attempt": n.to_string() } } });
    index.set_request(&request("billing-rotate-r5-6", "Failed", &attempt(6)));
    let history = known(&mut index).facts.history;
    assert_eq!(history.failures, 6);
    assert_eq!(history.failed_at, Some(datetime!(2031-06-04 11:05 UTC)));
    assert_eq!(history.finished, ["billing-rotate-r5-6"]);
    let foreign =
        json!({ "metadata": { "labels": null, "creationTimestamp": "2031-06-04T11:30:00Z" } });
    index.set_request(&request("by-hand", "Failed", &foreign));
    assert_eq!(known(&mut index).facts.history.failures, 6);
    let later = json!({ "metadata": { "creationTimestamp": "2031-06-04T11:40:00Z" } });
    index.set_request(&request("billing-rotate-r5-7", "Successful", &later));
    let history = known(&mut index).facts.history;
    assert_eq!((history.failures, history.failed_at), (0, None));
    assert_eq!(history.succeeded_at, Some(datetime!(2031-06-04 11:05 UTC)));
    let (good, bad) = index.finished(&at());
    assert_eq!((good.len(), bad.len()), (1, 1));
    // A fresh list of another namespace says nothing about them; one of all without them does.
    let elsewhere = Area::Namespace("elsewhere".to_owned());
    let none = [].into();
    assert_eq!(index.retain(Kind::Requests, &elsewhere, &none).len(), 0);
    assert_eq!(
        index.retain(Kind::Requests, &Area::Everywhere, &none).len(),
        3
    );
    assert_eq!(known(&mut index).facts.history.finished.len(), 0);
}

#[test]
fn the_pgbouncers_annotation_is_stronger_than_its_namespaces_and_nonsense_is_told() {
    let mut index = index();
    let namespace = [
        (MAINTENANCE_WINDOW.to_owned(), "Sat 02:00-06:00".to_owned()),
        (
            FREEZE_ROTATION.to_owned(),
            "2031-07-01T00:00:00Z".to_owned(),
        ),
    ];
    assert_eq!(index.set_namespace("shop", &namespace.into()), [at()]);
    let facts = known(&mut index).facts;
    assert!(
        matches!(facts.window, Window::Within(windows) if windows.as_str() == "Sat 02:00-06:00")
    );
    assert_eq!(facts.freeze, Freeze::Until(datetime!(2031-07-01 00:00 UTC)));

    let mut own = bouncer();
    own.annotations_mut()
        .insert(MAINTENANCE_WINDOW.to_owned(), "whenever".to_owned());
    own.annotations_mut()
        .insert(FREEZE_ROTATION.to_owned(), "perhaps".to_owned());
    index.set_bouncer(own.clone());
    let told = known(&mut index);
    assert_eq!(
        (&told.facts.window, &told.facts.freeze),
        (&Window::Unreadable, &Freeze::Unreadable)
    );
    let present = own.status.clone().unwrap().conditions;
    let (conditions, news) = tell::conditions(&present, &told, None, NOW).unwrap();
    assert_eq!((news.len(), news[0].reason), (1, "AnnotationUnreadable"));
    assert!(
        news[0].message.contains("\"whenever\" is no window"),
        "{}",
        news[0].message
    );
    assert!(
        news[0].message.contains("\"perhaps\" is neither"),
        "{}",
        news[0].message
    );
    // Said once.
    assert_eq!(tell::conditions(&conditions, &told, None, NOW), None);
    // And taken back when it is mended.
    index.set_bouncer(bouncer());
    let mended = known(&mut index);
    let (conditions, news) = tell::conditions(&conditions, &mended, None, NOW).unwrap();
    assert_eq!((conditions, news), (present, vec![]));
}

#[test]
fn a_pgbouncer_that_switched_automatic_operations_off_is_frozen_and_told_so_when_it_is_due() {
    let mut own = bouncer();
    own.spec.auto_ops = serde_json::from_value(json!({ "disabled": true })).unwrap();
    let mut index = index();
    index.set_bouncer(own);
    let later = NOW + Duration::days(55);
    let told = index.known(&at(), later).unwrap();
    let mut fleet = Fleet::new(Limits::default());
    fleet.upsert(&at(), told.facts.clone(), later);
    assert!(fleet.pass(later).starts.is_empty());
    let (_, news) = tell::conditions(&[], &told, fleet.verdict(&at()), later).unwrap();
    assert_eq!(news[0].reason, "Frozen");
    assert!(
        news[0].message.contains("expires at 2031-08-23"),
        "{}",
        news[0].message
    );
}

#[test]
fn an_address_that_a_load_balancer_has_given_comes_into_our_own_certificate() {
    let mut index = index();
    let given = LoadBalancer {
        hostnames: vec!["pool.example.org".to_owned()],
        ips: vec![[203, 0, 113, 7].into()],
    };
    assert_eq!(index.set_outside(&at(), given.clone()), [at()]);
    assert!(index.set_outside(&at(), given).is_empty(), "no news");
    let found = known(&mut index);
    assert_eq!(reasons(&found), ["AddressMissing"]);
    let wish = found.facts.wish.unwrap();
    assert_eq!(wish.remedy, Remedy::Rotate);
    assert!(
        wish.why.contains("pool.example.org, 203.0.113.7"),
        "{}",
        wish.why
    );

    let mut covered = sound();
    covered.dns_names.push("pool.example.org".to_owned());
    covered.ip_addresses.push([203, 0, 113, 7].into());
    index.set_secret(&secret("server"), Some(covered));
    assert_eq!(reasons(&known(&mut index)), <[&str; 0]>::default());

    // Whoever has given a certificate has chosen its names.
    let mut theirs = sound();
    theirs.leaf = Some(print(2));
    theirs.dns_names = known(&mut index).wanted[0].profile.dns_names.clone();
    index.set_secret(&secret("server"), Some(theirs));
    assert_eq!(reasons(&known(&mut index)), ["SecretAdopted"]);
    // And what is taken away again is nothing to do anything about.
    index.set_secret(&secret("server"), Some(sound()));
    assert_eq!(index.set_outside(&at(), LoadBalancer::default()), [at()]);
    assert_eq!(reasons(&known(&mut index)), <[&str; 0]>::default());
}
