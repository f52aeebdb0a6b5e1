//! A Secret that cert-manager writes for a `Certificate`: theirs for as long as they say so.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use bouncert::pki::facts::read_chain;

use super::platform::{POOLER, SERVER, condition, foreign, leaf, opened, requests, served};
use crate::stage::{LONG, Stage, request};
use crate::support::eventually;

/// cert-manager's, and by default the only word that it leaves about whose a Secret is.
const CERTIFICATE_NAME: &str = "cert-manager.io/certificate-name";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_secret_that_cert_manager_writes_is_left_to_it_until_it_lets_go() {
    let stage = opened().await;
    let (crt, key) = foreign(&stage, &leaf(&stage).await.unwrap());
    let theirs = read_chain(&crt).unwrap().remove(0).fingerprint;

    // Its Certificate names our Secret: pods follow what it has issued.
    issues(&stage, &crt, &key).await;
    let message = condition(&stage, "CertificateDrift", "SecretOwnedByOther").await;
    assert!(message.contains("Certificate handmade"), "{message}");
    let restart = eventually(LONG, async || {
        requests(&stage).await.pop().ok_or("no request yet")
    })
    .await;
    stage.successful(&restart.name_any()).await;
    assert_eq!(served(&stage).await, Some(theirs));

    // Nobody writes over it, because it would issue anew.
    let rotate = json!({ "rotateCertificates": true });
    stage
        .create(request("too-soon", POOLER, rotate.clone()))
        .await;
    let said = stage.failed("too-soon").await;
    assert!(said.contains("belongs to Certificate handmade"), "{said}");
    assert_eq!(leaf(&stage).await.unwrap().fingerprint, theirs);
    assert_eq!(served(&stage).await, Some(theirs));

    // It lets go.
    let change = json!({ "metadata": { "annotations": { CERTIFICATE_NAME: null } } });
    let secrets = stage.api::<Secret>();
    let params = PatchParams::default();
    let merge = Patch::Merge(&change);
    secrets.patch(SERVER, &params, &merge).await.unwrap();
    condition(&stage, "CertificateDrift", "SecretAdopted").await;
    stage.create(request("now", POOLER, rotate)).await;
    stage.successful("now").await;
    let ours = leaf(&stage).await.unwrap().fingerprint;
    assert_ne!(ours, theirs);
    assert_eq!(served(&stage).await, Some(ours));
    assert_eq!(requests(&stage).await.len(), 1, "the restart of before");
    stage.stop().await;
}

/// What cert-manager's issuing controller does.
async fn issues(stage: &Stage, crt: &str, key: &str) {
    let applied: Value = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": SERVER, "annotations": { CERTIFICATE_NAME: "handmade" } },
        "data": {
            "tls.crt": ByteString(crt.as_bytes().to_vec()),
            "tls.key": ByteString(key.as_bytes().to_vec()),
        },
    });
    let params = PatchParams::apply("cert-manager-certificates-issuing").force();
    let secrets = stage.api::<Secret>();
    let patch = Patch::Apply(&applied);
    secrets.patch(SERVER, &params, &patch).await.unwrap();
}
