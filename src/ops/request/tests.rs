//! One test for each row of docs/kubedb-compatibility.md, "Combinations in a request".

use serde_json::{Value, json};

use super::*;
use crate::api::opsrequest::PgBouncerOpsRequestSpec;
use crate::blueprint::defaults::IssuerKind;

fn spec(extra: &Value) -> PgBouncerSpec {
    let mut spec = json!({
        "version": "1.18.0",
        "database": { "databaseName": "ledger", "databaseRef": { "name": "pg", "namespace": "shop" } },
    });
    json_patch::merge(&mut spec, extra);
    serde_json::from_value(spec).unwrap()
}

fn without_tls() -> PgBouncerSpec {
    spec(&json!({ "sslMode": "disable", "connectionPool": { "authType": "md5", "port": 6432 } }))
}

fn with_tls() -> PgBouncerSpec {
    spec(&json!({
        "sslMode": "verify-ca",
        "connectionPool": { "authType": "md5" },
        "tls": {
            "issuerRef": { "apiGroup": "cert-manager.io", "kind": "Issuer", "name": "old-ca" },
            "certificates": [
                { "alias": "client", "secretName": "billing-client-cert" },
                { "alias": "server", "secretName": "chosen", "dnsNames": ["db.example"] },
                { "alias": "metrics-exporter", "secretName": "billing-metrics-exporter-cert" },
            ],
        },
    }))
}

fn issuer() -> Value {
    json!({ "apiGroup": "cert-manager.io", "kind": "Issuer", "name": "new-ca" })
}

fn request(tls: &Value) -> PgBouncerOpsRequestSpec {
    serde_json::from_value(json!({
        "databaseRef": { "name": "billing" }, "type": "ReconfigureTLS", "tls": tls,
    }))
    .unwrap()
}

fn change(present: &PgBouncerSpec, tls: &Value) -> Result<Change, Refusal> {
    parse(&request(tls), present)
}

fn target(present: &PgBouncerSpec, tls: &Value) -> TlsState {
    let change = change(present, tls).unwrap();
    target_state("billing", present, &change, IssuerKind::Private)
}

fn secrets(state: &TlsState) -> Vec<(String, Option<String>)> {
    let tls = state.tls.as_ref().unwrap();
    tls.certificates
        .iter()
        .map(|c| (c.alias.clone(), c.secret_name.clone()))
        .collect()
}

#[test]
fn an_issuer_adds_tls_and_completes_the_certificates_in_order() {
    let tls = json!({
        "issuerRef": issuer(),
        "certificates": [{ "alias": "client", "subject": { "organizations": ["pool"] } }],
        "sslMode": "require", "clientAuthMode": "scram-sha-256",
    });
    let state = target(&without_tls(), &tls);
    assert_eq!(
        state
            .tls
            .as_ref()
            .unwrap()
            .issuer_ref
            .as_ref()
            .unwrap()
            .name,
        "new-ca"
    );
    let names = |alias: &str| (alias.to_owned(), Some(format!("billing-{alias}-cert")));
    assert_eq!(
        secrets(&state),
        [names("client"), names("server"), names("metrics-exporter")]
    );
    assert_eq!(state.ssl_mode, Some(SslMode::Require));
    assert_eq!(state.auth_type, Some(AuthType::ScramSha256));
    let written = with_state(&without_tls(), &state);
    assert_eq!(TlsState::of(&written), state);
    assert_eq!(written.connection_pool.unwrap().port, Some(6432));
}

#[test]
fn adding_tls_without_a_mode_replaces_the_stored_disable() {
    let state = target(&without_tls(), &json!({ "issuerRef": issuer() }));
    assert_eq!(state.ssl_mode, Some(SslMode::VerifyFull));
    assert_eq!(state.auth_type, Some(AuthType::Md5));
}

#[test]
fn another_issuer_changes_nothing_else() {
    let state = target(&with_tls(), &json!({ "issuerRef": issuer() }));
    let mut expected = TlsState::of(&with_tls());
    expected
        .tls
        .as_mut()
        .unwrap()
        .issuer_ref
        .as_mut()
        .unwrap()
        .name = "new-ca".to_owned();
    assert_eq!(state, expected);
    let change = change(&with_tls(), &json!({ "issuerRef": issuer() })).unwrap();
    assert_eq!(change.aliases_to_issue(), Alias::ALL);
}

#[test]
fn a_certificate_entry_is_replaced_and_keeps_its_secret() {
    let tls = json!({ "certificates": [{ "alias": "server", "dnsNames": ["pool.example"] }] });
    let state = target(&with_tls(), &tls);
    let server = state
        .tls
        .as_ref()
        .unwrap()
        .certificate("server")
        .unwrap()
        .clone();
    assert_eq!(server.dns_names, ["pool.example"]);
    assert_eq!(server.secret_name.as_deref(), Some("chosen"));
    assert_eq!(
        state
            .tls
            .as_ref()
            .unwrap()
            .issuer_ref
            .as_ref()
            .unwrap()
            .name,
        "old-ca"
    );
    assert_eq!(
        change(&with_tls(), &tls).unwrap().aliases_to_issue(),
        [Alias::Server]
    );
}

#[test]
fn issuer_and_certificates_go_together_and_reissue_everything() {
    let tls = json!({
        "issuerRef": issuer(), "certificates": [{ "alias": "server", "secretName": "moved" }],
    });
    let state = target(&with_tls(), &tls);
    assert_eq!(
        secrets(&state)[1],
        ("server".to_owned(), Some("moved".to_owned()))
    );
    let change = change(&with_tls(), &tls).unwrap();
    assert!(matches!(change, Change::ChangeIssuer { .. }));
    assert_eq!(change.aliases_to_issue(), Alias::ALL);
}

#[test]
fn rotation_leaves_the_spec_as_it_is() {
    let tls = json!({ "rotateCertificates": true });
    assert_eq!(target(&with_tls(), &tls), TlsState::of(&with_tls()));
    let change = change(&with_tls(), &tls).unwrap();
    assert_eq!(change.aliases_to_issue(), Alias::ALL);
}

#[test]
fn a_mode_alone_issues_nothing() {
    let tls = json!({ "sslMode": "allow" });
    let state = target(&with_tls(), &tls);
    assert_eq!(state.ssl_mode, Some(SslMode::Allow));
    assert_eq!(state.tls, with_tls().tls);
    assert!(
        change(&with_tls(), &tls)
            .unwrap()
            .aliases_to_issue()
            .is_empty()
    );
}

#[test]
fn the_clients_proof_alone_can_change_with_and_without_tls() {
    for present in [with_tls(), without_tls()] {
        let state = target(&present, &json!({ "clientAuthMode": "scram-sha-256" }));
        assert_eq!(state.auth_type, Some(AuthType::ScramSha256));
        assert_eq!(state.ssl_mode, present.ssl_mode);
    }
}

#[test]
fn removal_writes_disable_and_no_tls() {
    let tls = json!({ "remove": true, "clientAuthMode": "md5" });
    let state = target(&with_tls(), &tls);
    assert_eq!(
        state,
        TlsState {
            tls: None,
            ssl_mode: Some(SslMode::Disable),
            auth_type: Some(AuthType::Md5),
        }
    );
    assert!(!state.serves_tls());
}

#[test]
fn removing_what_is_not_there_is_done_already() {
    assert_eq!(
        change(&without_tls(), &json!({ "remove": true })),
        Ok(Change::NoOp)
    );
}

#[test]
fn without_tls_there_is_nothing_to_rotate_and_no_issuer_for_certificates() {
    let rotate = change(&without_tls(), &json!({ "rotateCertificates": true }));
    assert_eq!(rotate, Err(Refusal::NothingToRotate));
    let certificates = json!({ "certificates": [{ "alias": "server" }] });
    assert_eq!(
        change(&without_tls(), &certificates),
        Err(Refusal::NoIssuer)
    );
}

#[test]
fn two_operations_in_one_request_are_refused_by_name() {
    for (tls, both) in [
        (
            json!({ "rotateCertificates": true, "remove": true }),
            "remove and rotateCertificates",
        ),
        (
            json!({ "issuerRef": issuer(), "remove": true }),
            "remove and issuerRef",
        ),
        (
            json!({ "certificates": [{ "alias": "server" }], "remove": true }),
            "remove and certificates",
        ),
        (
            json!({ "issuerRef": issuer(), "rotateCertificates": true }),
            "rotateCertificates and issuerRef",
        ),
        (
            json!({ "certificates": [{ "alias": "server" }], "rotateCertificates": true }),
            "rotateCertificates and certificates",
        ),
    ] {
        assert_eq!(
            change(&with_tls(), &tls),
            Err(Refusal::Ambiguous(both.to_owned()))
        );
    }
}

#[test]
fn an_empty_request_says_what_could_be_set() {
    let refusal = change(&with_tls(), &json!({})).unwrap_err();
    assert_eq!(refusal, Refusal::Empty);
    assert!(refusal.to_string().contains("rotateCertificates"));
    let nothing = json!({ "rotateCertificates": false, "remove": false });
    assert_eq!(change(&with_tls(), &nothing), Err(Refusal::Empty));
}

#[test]
fn a_tls_mode_without_tls_is_refused() {
    let refusal = change(&without_tls(), &json!({ "sslMode": "require" })).unwrap_err();
    assert_eq!(refusal, Refusal::ModeWithoutTls(SslMode::Require));
    assert!(refusal.to_string().contains("issuerRef"), "{refusal}");
}

#[test]
fn certificates_can_be_issued_with_tls_still_off() {
    let tls = json!({ "issuerRef": issuer(), "sslMode": "disable" });
    let state = target(&without_tls(), &tls);
    assert!(state.tls.is_some());
    assert!(!state.serves_tls());
    assert_eq!(
        change(&without_tls(), &tls).unwrap().aliases_to_issue(),
        Alias::ALL
    );
}

#[test]
fn an_issuer_that_may_not_exist_is_accepted_here_because_it_may_come() {
    let tls = json!({ "issuerRef": { "kind": "ClusterIssuer", "name": "not-yet" } });
    assert!(matches!(
        change(&without_tls(), &tls),
        Ok(Change::Add { .. })
    ));
}

#[test]
fn a_common_issuer_of_a_foreign_kind_or_group_is_refused() {
    for (kind, group) in [
        ("StepIssuer", "cert-manager.io"),
        ("Issuer", "certs.example"),
    ] {
        let named = json!({ "apiGroup": group, "kind": kind, "name": "x" });
        let common = change(&without_tls(), &json!({ "issuerRef": named }));
        assert!(
            matches!(common, Err(Refusal::ForeignIssuer { .. })),
            "{common:?}"
        );
    }
}

#[test]
fn an_entry_may_name_an_issuer_of_another_group_but_no_kind_that_cert_manager_lacks() {
    let entry = |kind: &str, group: &str| {
        let named = json!({ "apiGroup": group, "kind": kind, "name": "x" });
        json!({ "certificates": [{ "alias": "client", "issuerRef": named }] })
    };
    let other = change(&with_tls(), &entry("StepIssuer", "certs.example"));
    assert!(
        matches!(other, Ok(Change::UpdateCertificates { .. })),
        "{other:?}"
    );
    let refusal = change(&with_tls(), &entry("StepIssuer", "cert-manager.io"));
    let refusal = refusal.unwrap_err().to_string();
    assert!(
        refusal.contains("certificates[client].issuerRef"),
        "{refusal}"
    );
}

#[test]
fn an_unknown_alias_is_kept_and_issues_nothing() {
    let tls = json!({ "certificates": [{ "alias": "archiver" }] });
    let state = target(&with_tls(), &tls);
    assert!(
        state
            .tls
            .as_ref()
            .unwrap()
            .certificate("archiver")
            .is_some()
    );
    assert!(
        !state
            .aliases()
            .iter()
            .any(|alias| alias.as_str() == "archiver")
    );
    assert!(
        change(&with_tls(), &tls)
            .unwrap()
            .aliases_to_issue()
            .is_empty()
    );
}

#[test]
fn an_acme_issuer_completes_only_the_server() {
    let present = without_tls();
    let tls = json!({ "issuerRef": issuer(), "sslMode": "require" });
    let change = change(&present, &tls).unwrap();
    let state = target_state("billing", &present, &change, IssuerKind::Acme);
    assert_eq!(state.aliases(), [Alias::Server]);
}

#[test]
fn values_outside_the_schema_do_not_even_parse() {
    for tls in [
        json!({ "clientAuthMode": "scram" }),
        json!({ "clientAuthMode": "cert" }),
        json!({ "sslMode": "disabled" }),
    ] {
        assert!(serde_json::from_value::<TlsRequest>(tls).is_err());
    }
}

#[test]
fn a_request_without_tls_or_of_another_type_says_so() {
    let mut plain = request(&json!({}));
    plain.tls = None;
    let text = parse(&plain, &with_tls()).unwrap_err().to_string();
    assert!(text.starts_with("`spec.tls` nil not supported in ReconfigureTLS type"));
    plain.type_ = RequestType::RotateAuth;
    let text = parse(&plain, &with_tls()).unwrap_err().to_string();
    assert!(text.contains("RotateAuth") && text.contains("not supported by Bouncert"));
}

#[test]
fn removal_with_a_tls_mode_is_a_contradiction() {
    let tls = json!({ "remove": true, "sslMode": "require" });
    assert_eq!(
        change(&with_tls(), &tls),
        Err(Refusal::ModeAfterRemoval(SslMode::Require))
    );
}

#[test]
fn the_same_alias_twice_is_refused() {
    let tls = json!({ "certificates": [{ "alias": "server" }, { "alias": "server" }] });
    assert_eq!(
        change(&with_tls(), &tls),
        Err(Refusal::AliasTwice("server".to_owned()))
    );
}

#[test]
fn settings_come_from_the_request_before_the_pgbouncer() {
    let on = |text: &str| [("bouncert.dev/drain-timeout".to_owned(), text.to_owned())].into();
    let mut asked = request(&json!({}));
    asked.timeout = Some("90s".to_owned());
    asked.max_retries = 40;
    let settings = Settings::parse(&asked, &on("3s"), &on("20s")).unwrap();
    let drain = settings.drain(Pools::Sessions);
    assert_eq!(drain.leave.to_string(), "3s");
    assert_eq!(drain.quiesce.to_string(), "22s", "a quarter of the step");
    assert_eq!(settings.step_timeout.to_string(), "1m30s");
    assert_eq!(settings.max_retries, MAX_RETRIES_MAX);
    let defaults = Settings::parse(&request(&json!({})), &[].into(), &[].into()).unwrap();
    assert_eq!(defaults, Settings::default());
    assert_eq!(defaults.drain(Pools::Sessions).leave, LEAVE_SESSION_DEFAULT);
    assert_eq!(defaults.drain(Pools::Transactions).leave, LEAVE_DEFAULT);
}

#[test]
fn the_number_of_pods_out_of_service_is_read_as_kubernetes_means_it() {
    let of = |text: &str, replicas| {
        let on = [("bouncert.dev/max-unavailable".to_owned(), text.to_owned())].into();
        let settings = Settings::parse(&request(&json!({})), &[].into(), &on);
        settings.map(|settings| settings.max_unavailable.of(replicas))
    };
    assert_eq!(of("2", 9), Ok(2));
    assert_eq!(of("25%", 9), Ok(3), "rounded up");
    assert_eq!(of("100%", 9), Ok(4), "what the disruption budget lets go");
    assert_eq!(of("7", 3), Ok(1));
    assert_eq!(of("7", 2), Ok(1));
    assert_eq!(of("7", 1), Ok(1));
    for nonsense in ["0", "0%", "101%", "-1", "some", "1.5"] {
        let refusal = of(nonsense, 5).unwrap_err().to_string();
        assert!(refusal.contains(nonsense), "{refusal}");
    }
}

#[test]
fn settings_without_a_meaning_name_their_field() {
    let none = std::collections::BTreeMap::new();
    let with = |edit: &dyn Fn(&mut PgBouncerOpsRequestSpec)| {
        let mut asked = request(&json!({}));
        edit(&mut asked);
        Settings::parse(&asked, &none, &none)
            .unwrap_err()
            .to_string()
    };
    assert!(with(&|r| r.timeout = Some("5".to_owned())).contains("spec.timeout"));
    assert!(with(&|r| r.timeout = Some("-3m".to_owned())).contains("from 1s"));
    assert!(with(&|r| r.max_retries = -1).contains("spec.maxRetries"));
    let long = [("bouncert.dev/drain-timeout".to_owned(), "4m".to_owned())].into();
    let refusal = Settings::parse(&request(&json!({})), &long, &none).unwrap_err();
    assert!(refusal.to_string().contains("to 2m30s"), "{refusal}");
    let strategy = [("bouncert.dev/strategy".to_owned(), "Sideways".to_owned())].into();
    let refusal = Settings::parse(&request(&json!({})), &strategy, &none).unwrap_err();
    assert!(refusal.to_string().contains("Sideways"));
}
