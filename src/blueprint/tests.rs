//! What is built, from the outside.

use k8s_openapi::api::core::v1::{Container, PodSpec};
use serde_json::json;

use super::*;
use crate::api::annotations::{DIGEST, SERVING_LABEL};
use crate::api::{PgBouncer, SslMode};
use crate::blueprint::defaults::{IssuerKind, complete};
use crate::pgbouncer::ini::Section;

fn completed(mut bouncer: PgBouncer) -> PgBouncer {
    let name = bouncer.metadata.name.clone().unwrap();
    bouncer.spec = complete(&bouncer.spec, &name, IssuerKind::Private);
    bouncer
}

fn inputs(bouncer: PgBouncer) -> Inputs {
    let mut around = testing::surroundings();
    around.material = Some(testing::material());
    Inputs::new(&completed(bouncer), &around).unwrap()
}

fn pod(resources: &Resources) -> PodSpec {
    resources.workload.template().spec.clone().unwrap()
}

fn pooler(resources: &Resources) -> Container {
    pod(resources).containers.remove(0)
}

fn tls_keys(inputs: &Inputs) -> Vec<(String, String)> {
    let settings = inputs.ini().section(Section::Pgbouncer);
    settings
        .filter(|(key, _)| key.contains("tls"))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn a_plain_object_gets_the_keys_that_kubedb_renders_and_no_tls() {
    let mut bouncer = testing::bouncer("billing");
    bouncer.spec.connection_pool = serde_json::from_value(json!({
        "port": 5432, "poolMode": "session", "reservePoolSize": 5, "maxClientConnections": 87,
        "defaultPoolSize": 2, "minPoolSize": 1, "authType": "md5",
    }))
    .unwrap();
    let ini = inputs(bouncer).ini().render();
    let expected = "\
[databases]
ledger = host=books.vault.svc port=5433 dbname=ledger

[pgbouncer]
listen_addr = *
listen_port = 5432
auth_type = md5
auth_file = /var/run/pgbouncer/secret/userlist
admin_users = pgbouncer
pool_mode = session
max_client_conn = 87
default_pool_size = 2
min_pool_size = 1
reserve_pool_size = 5
reserve_pool_timeout = 5
max_db_connections = 1
max_user_connections = 2
stats_period = 60
ignore_startup_parameters = extra_float_digits
logfile = /tmp/pgbouncer.log
pidfile = /tmp/pgbouncer.pid
";
    assert_eq!(ini, expected);
}

#[test]
fn tls_adds_exactly_four_keys() {
    let keys = tls_keys(&inputs(testing::tls_bouncer("billing")));
    let dir = "/var/run/pgbouncer/tls/serving/server";
    let expected = [
        ("client_tls_sslmode", "verify-full".to_owned()),
        ("client_tls_ca_file", format!("{dir}/ca.crt")),
        ("client_tls_cert_file", format!("{dir}/tls.crt")),
        ("client_tls_key_file", format!("{dir}/tls.key")),
    ];
    assert_eq!(keys, expected.map(|(key, value)| (key.to_owned(), value)));
}

#[test]
fn tls_with_mode_disable_mounts_material_and_renders_no_key() {
    let mut bouncer = testing::tls_bouncer("billing");
    bouncer.spec.ssl_mode = Some(SslMode::Disable);
    let inputs = inputs(bouncer);
    assert!(tls_keys(&inputs).is_empty());
    assert_eq!(pod(&build(&inputs).unwrap()).volumes.unwrap().len(), 4);
}

#[test]
fn a_tls_mode_without_an_issuer_is_refused() {
    let mut bouncer = testing::bouncer("billing");
    bouncer.spec.ssl_mode = Some(SslMode::Require);
    let error = Inputs::new(&completed(bouncer), &testing::surroundings()).unwrap_err();
    assert!(
        matches!(error, InputsError::TlsWithoutIssuer { mode: "require" }),
        "{error}"
    );
}

#[test]
fn tls_waits_for_its_material() {
    let bouncer = completed(testing::tls_bouncer("billing"));
    let error = Inputs::new(&bouncer, &testing::surroundings()).unwrap_err();
    assert!(matches!(error, InputsError::NoMaterial(_)), "{error}");
    assert!(error.to_string().contains("shop/billing-server-cert"));
}

#[test]
fn the_users_configuration_wins_over_the_pool_and_inline_over_the_secret() {
    let mut bouncer = testing::bouncer("billing");
    bouncer.spec.configuration = serde_json::from_value(json!({
        "secretName": "tuned",
        "inline": { "pgbouncer.ini": "[pgbouncer]\nstats_period=7\n" },
    }))
    .unwrap();
    let mut around = testing::surroundings();
    around.custom_ini = Some("[pgbouncer]\nstats_period = 9\nauth_type=scram-sha-256\n".to_owned());
    let inputs = Inputs::new(&completed(bouncer), &around).unwrap();
    let ini = inputs.ini().render();
    assert!(ini.contains("stats_period=7\n"), "{ini}");
    assert!(ini.contains("auth_type=scram-sha-256\n"), "{ini}");
}

#[test]
fn the_users_configuration_may_neither_redirect_databases_nor_break_the_file() {
    for (text, words) in [
        ("[databases]\nledger = host=evil\n", "[databases]"),
        ("[pgbouncer]\nno_such_setting = 1\n", "no_such_setting"),
        ("[pgbouncer]\nwhat\n", "is not a file that PgBouncer loads"),
    ] {
        let mut bouncer = testing::bouncer("billing");
        bouncer.spec.configuration =
            serde_json::from_value(json!({ "inline": { "pgbouncer.ini": text } })).unwrap();
        let error = Inputs::new(&completed(bouncer), &testing::surroundings()).unwrap_err();
        let InputsError::Config(source) = error else {
            panic!("{error:?}")
        };
        assert!(source.to_string().contains(words), "{source}");
    }
}

#[test]
fn only_pods_in_service_are_behind_the_primary_service() {
    let resources = build(&inputs(testing::bouncer("billing"))).unwrap();
    let selects = |service: &Service| {
        let selector = service.spec.as_ref().unwrap().selector.clone().unwrap();
        selector.contains_key(SERVING_LABEL)
    };
    assert!(selects(&resources.primary));
    assert!(!selects(&resources.governing));
    let template = resources.workload.template().metadata.clone().unwrap();
    assert_eq!(template.labels.unwrap()[SERVING_LABEL], "true");
    assert_eq!(template.annotations.unwrap()[DIGEST].len(), 64);
}

#[test]
fn the_digest_follows_configuration_and_material_but_not_users() {
    let digest = |change: fn(&mut PgBouncer, &mut Surroundings)| {
        let mut bouncer = testing::tls_bouncer("billing");
        let mut around = testing::surroundings();
        around.material = Some(testing::material());
        change(&mut bouncer, &mut around);
        Inputs::new(&completed(bouncer), &around).unwrap().digest()
    };
    let before = digest(|_, _| ());
    assert_eq!(
        digest(|_, around| around.users.push(testing::credentials("eve", "apple"))),
        before
    );
    assert_ne!(
        digest(|bouncer, _| bouncer.spec.ssl_mode = Some(SslMode::Require)),
        before
    );
    assert_ne!(
        digest(|_, around| around.material.as_mut().unwrap().ca_bundle.push('\n')),
        before
    );
}

#[test]
fn the_pod_template_changes_what_is_the_users_and_keeps_what_is_ours() {
    let mut bouncer = testing::bouncer("billing");
    bouncer.spec.pod_template = Some(json!({
        "metadata": { "labels": { "tier": "edge" } },
        "spec": {
            "terminationGracePeriodSeconds": 90,
            "podPlacementPolicy": { "name": "spread" },
            "containers": [
                {
                    "name": "pgbouncer",
                    "image": "example.org/other",
                    "resources": { "requests": { "cpu": "2" } },
                    "env": [{ "name": "LANG", "value": "C" }],
                },
                { "name": "helper", "image": "example.org/helper" },
            ],
        },
    }));
    let resources = build(&inputs(bouncer)).unwrap();
    let pod = pod(&resources);
    assert_eq!(pod.termination_grace_period_seconds, Some(90));
    assert_eq!(pod.containers.len(), 2);
    let pooler = pooler(&resources);
    assert_eq!(
        pooler.image.as_deref(),
        Some("example.org/pgbouncer:1.18.0")
    );
    assert_eq!(pooler.resources.unwrap().limits, None);
    assert_eq!(pooler.env.unwrap().len(), 2);
    let Workload::PetSet(set) = &resources.workload else {
        panic!("no PetSet")
    };
    assert_eq!(
        set.spec.pod_placement_policy.as_ref().unwrap().name,
        "spread"
    );
}

#[test]
fn reserved_paths_volumes_and_variables_are_refused() {
    for spec in [
        json!({ "volumes": [{ "name": "user-secret", "emptyDir": {} }] }),
        json!({ "containers": [{ "name": "x", "volumeMounts": [
            { "name": "v", "mountPath": "/etc/config/more" }] }] }),
        json!({ "containers": [{ "name": "pgbouncer", "env": [
            { "name": "PGPASSWORD", "value": "x" }] }] }),
    ] {
        let mut bouncer = testing::bouncer("billing");
        bouncer.spec.pod_template = Some(json!({ "spec": spec }));
        let error = Inputs::new(&completed(bouncer), &testing::surroundings()).unwrap_err();
        assert!(matches!(error, InputsError::PodTemplate(_)), "{error}");
    }
}

#[test]
fn a_service_template_changes_type_and_node_port() {
    let mut bouncer = testing::bouncer("billing");
    bouncer.spec.service_templates = serde_json::from_value(json!([{
        "alias": "primary",
        "metadata": { "annotations": { "team": "ledger" } },
        "spec": { "type": "NodePort", "ports": [{ "name": "primary", "port": 6432, "nodePort": 30077 }] },
    }]))
    .unwrap();
    let service = build(&inputs(bouncer)).unwrap().primary;
    assert_eq!(service.metadata.annotations.unwrap()["team"], "ledger");
    let spec = service.spec.unwrap();
    assert_eq!(spec.type_.as_deref(), Some("NodePort"));
    let port = &spec.ports.unwrap()[0];
    assert_eq!((port.port, port.node_port), (6432, Some(30077)));
}

#[test]
fn services_take_both_families_where_there_are_both_unless_a_template_says_otherwise() {
    let mut bouncer = testing::bouncer("billing");
    bouncer.spec.monitor = Some(json!({ "agent": "prometheus.io/builtin" }));
    let policies = |bouncer: &PgBouncer| {
        let resources = build(&inputs(bouncer.clone())).unwrap();
        [
            resources.governing,
            resources.primary,
            resources.stats.unwrap(),
        ]
        .map(|service| service.spec.unwrap().ip_family_policy.unwrap())
    };
    assert_eq!(policies(&bouncer), ["PreferDualStack"; 3]);
    bouncer.spec.service_templates = serde_json::from_value(json!([{
        "alias": "primary", "spec": { "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"] },
    }]))
    .unwrap();
    let single = ["PreferDualStack", "SingleStack", "PreferDualStack"];
    assert_eq!(policies(&bouncer), single);
}

#[test]
fn monitoring_brings_an_exporter_and_its_service() {
    let mut bouncer = testing::tls_bouncer("billing");
    bouncer.spec.monitor = Some(json!({ "agent": "prometheus.io/builtin" }));
    let resources = build(&inputs(bouncer)).unwrap();
    let stats = resources.stats.as_ref().unwrap();
    let annotations = stats.metadata.annotations.clone().unwrap();
    assert_eq!(annotations["prometheus.io/port"], "56790");
    assert_eq!(
        annotations["monitoring.appscode.com/agent"],
        "prometheus.io/builtin"
    );
    let exporter = pod(&resources).containers.remove(1);
    assert_eq!(exporter.name, "exporter");
    let source = exporter.env.unwrap().remove(0).value.unwrap();
    assert!(source.contains("sslmode=verify-full"), "{source}");
}

#[test]
fn several_replicas_get_a_disruption_budget_and_halting_scales_to_nothing() {
    let mut bouncer = testing::bouncer("billing");
    assert!(
        build(&inputs(bouncer.clone()))
            .unwrap()
            .disruption_budget
            .is_none()
    );
    bouncer.spec.replicas = Some(7);
    bouncer.spec.halted = Some(true);
    let resources = build(&inputs(bouncer)).unwrap();
    let budget = resources.disruption_budget.unwrap().spec.unwrap();
    assert_eq!(
        serde_json::to_value(budget.max_unavailable).unwrap(),
        json!(3)
    );
    assert_eq!(resources.workload.replicas(), 0);
}

#[test]
fn what_running_pods_cannot_take_up_from_files_is_told() {
    let with = |change: fn(&mut PgBouncer)| {
        let mut bouncer = testing::tls_bouncer("billing");
        change(&mut bouncer);
        inputs(bouncer)
    };
    let former = with(|bouncer| bouncer.spec.ssl_mode = Some(SslMode::Require));
    let template = build(&former).unwrap().workload.template().clone();
    let running = k8s_openapi::api::core::v1::Pod {
        metadata: template.metadata.unwrap(),
        spec: template.spec,
        status: None,
    };
    let bare = k8s_openapi::api::core::v1::Pod::default();
    let beyond = |target: &Inputs, pods: &[_]| beyond_reload(&former, target, pods).unwrap();

    let stricter = with(|bouncer| bouncer.spec.ssl_mode = Some(SslMode::VerifyFull));
    assert!(beyond(&stricter, &[running]).is_empty());
    let lacks = beyond(&stricter, &[bare]);
    assert!(
        lacks.iter().any(|why| why.contains("has no volume")),
        "{lacks:?}"
    );
    let without = beyond(&inputs(testing::bouncer("billing")), &[]);
    assert!(
        without.iter().any(|why| why.contains("lose volume")),
        "{without:?}"
    );
}
