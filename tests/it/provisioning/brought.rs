//! Configurations that are brought along, against what the specification says: refused before anything is
//! made, with the reason in the status.

use bouncert::api::PetSet;
use bouncert::api::common::Phase;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::objects::Scene;
use super::{bouncer, conditions, create, get, issuer};

#[tokio::test]
async fn a_file_that_says_otherwise_than_the_specification_is_refused_and_named() {
    let scene = Scene::new().await;
    issuer(&scene.client, "notary").await;
    let of = json!({"apiGroup": "cert-manager.io", "kind": "Issuer", "name": "notary"});
    for (index, (line, told)) in [
        (
            "listen_port = 6432",
            "listen_port is \"6432\": leave it out, or write \"5432\"",
        ),
        (
            "auth_file = /etc/users",
            "auth_file is \"/etc/users\": leave it out",
        ),
        (
            "auth_type = hba\nauth_hba_file = /etc/hba",
            "auth_hba_file is \"/etc/hba\": mount a volume",
        ),
        ("user = postgres", "user is \"postgres\": leave it out"),
        (
            "client_tls_sslmode = prefer",
            "client_tls_sslmode is \"prefer\": leave it out, or write \"verify-full\"",
        ),
        (
            "client_tls_ca_file = /etc/ca",
            "client_tls_ca_file is \"/etc/ca\"",
        ),
        (
            "admin_users = ops",
            "admin_users is \"ops\": add \"pgbouncer\"",
        ),
        (
            "listen_addr = localhost",
            "listen_addr is \"localhost\": leave it out",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("till-{index}");
        let text = format!("[pgbouncer]\n{line}\n");
        let spec = json!({
            "sslMode": "verify-full", "tls": {"issuerRef": of},
            "configuration": {"inline": {"pgbouncer.ini": text}},
        });
        create(&scene.client, bouncer(&name, spec)).await;
        scene.reconcile(&name).await;
        let said = conditions(&scene.bouncer(&name).await);
        let told = format!("spec.configuration.inline, key pgbouncer.ini: {told}");
        assert!(said.iter().any(|it| it.contains(&told)), "{told}: {said:?}");
        assert!(
            get::<PetSet>(&scene.client, &name).await.is_none(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_pooler_keeps_what_it_has_until_the_file_is_mended() {
    let mut scene = Scene::new().await;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "tuned", "namespace": super::NAMESPACE},
        "stringData": {"pgbouncer.ini": "[pgbouncer]\nstats_period = 9\nlisten_port = 5432\n"},
    });
    create(&scene.client, secret).await;
    let spec = json!({"configuration": {"secretName": "tuned"}});
    create(&scene.client, bouncer("billing", spec)).await;
    scene.reconcile("billing").await;
    let before: PetSet = get(&scene.client, "billing").await.unwrap();
    let secrets: Api<k8s_openapi::api::core::v1::Secret> =
        Api::namespaced(scene.client.clone(), super::NAMESPACE);
    let text = "[pgbouncer]\nstats_period = 9\nlisten_port = 6432\n";
    let worse = Patch::Merge(json!({"stringData": {"pgbouncer.ini": text}}));
    secrets
        .patch("tuned", &PatchParams::default(), &worse)
        .await
        .unwrap();
    scene.restart();
    scene.reconcile("billing").await;
    let said = conditions(&scene.bouncer("billing").await);
    let told = "Secret tuned, key pgbouncer.ini: listen_port is \"6432\"";
    assert!(said.iter().any(|it| it.contains(told)), "{said:?}");
    let status = scene.bouncer("billing").await.status.unwrap();
    assert_ne!(status.phase, Some(Phase::Ready));
    let after: PetSet = get(&scene.client, "billing").await.unwrap();
    assert_eq!(after.spec, before.spec);
}
