//! Vault servers that are not Vault, or not where they may be; tokens that they must not get.

use super::*;

/// A `spec.vault` that logs in with a token at hand.
fn with_token(server: &str) -> Value {
    json!({"vault": {
        "server": server, "path": "pki/sign/poolers",
        "auth": {"tokenSecretRef": {"name": "vault-token"}},
    }})
}

/// What is said of a server at `server`, whatever its name.
async fn said_of(server: &str, networks: VaultNetworks) -> String {
    let mut scene = Scene::new().await;
    scene.networks = networks;
    scene.secret("vault-token", json!({"token": TOKEN})).await;
    scene.issuer(with_token(server)).await;
    let error = failure(ask(&scene, &profile()).await);
    chain(&error).replace(server, "THERE")
}

/// A server's profile, by a name that a parameter does not hide.
fn profile() -> LeafProfile {
    server()
}

#[tokio::test]
async fn a_server_at_an_address_that_issuers_may_not_name_is_never_connected_to() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    for host in [
        "127.0.0.1",
        "localhost",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "127.1",
        "2130706433",
        "169.254.169.254",
        "[fe80::1]",
    ] {
        let said = said_of(&format!("http://{host}:{port}"), VaultNetworks::default()).await;
        assert!(said.contains("--vault-networks"), "{host}: {said}");
    }
    let nobody = listener.accept().unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
    let here = VaultNetworks::Within(vec!["127.0.0.0/8".parse().unwrap()]);
    drop(listener);
    let said = said_of(&format!("http://127.0.0.1:{port}"), here).await;
    assert!(said.contains("cannot speak to THERE"), "{said}");
}

/// A server that answers every call so, and counts none.
async fn stranger(status: u16, kind: &'static str, body: &'static str) -> (String, JoinSet<()>) {
    let answer = move || async move {
        let status = StatusCode::from_u16(status).unwrap();
        let headers = [
            ("content-type", kind),
            ("location", "http://127.0.0.1:1/v1/x"),
        ];
        (status, headers, body)
    };
    let router = Router::new().fallback(answer);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, serving)
}

#[tokio::test]
async fn whatever_does_not_answer_as_a_vault_is_told_in_one_text() {
    let loopback = || VaultNetworks::RoutableAndLoopback;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let expected = said_of(&url, loopback()).await;
    assert!(expected.contains("cannot speak to THERE"), "{expected}");
    // Not TLS.
    let (open, _serving) = stranger(200, "text/html", "<p>").await;
    assert_eq!(
        said_of(&open.replace("http:", "https:"), loopback()).await,
        expected
    );
    for (status, kind, body) in [
        (200, "text/html", "<p>secret page</p>"),
        (200, "application/json", "{\"kind\": \"Status\"}"),
        (200, "application/json", "[]"),
        (302, "text/plain", ""),
        (401, "application/json", "{\"message\": \"secret word\"}"),
        (403, "text/html", "secret page"),
        (404, "text/plain", ""),
        (500, "text/plain", "secret trace"),
        (503, "text/plain", "secret trace"),
    ] {
        let (url, _serving) = stranger(status, kind, body).await;
        assert_eq!(said_of(&url, loopback()).await, expected, "{status} {body}");
    }
}

#[tokio::test]
async fn the_words_of_a_vault_are_bounded_and_shown_without_what_does_not_show() {
    let (scene, vault) = (Scene::new().await, FakeVault::start().await);
    scene.secret("vault-token", json!({"token": TOKEN})).await;
    scene
        .issuer(vault.spec(&json!({"tokenSecretRef": {"name": "vault-token"}})))
        .await;
    let text = format!("no\u{1b}[31m\r\n\u{202e}way {}", "x".repeat(5_000));
    vault.answer_instead(403, text.leak());
    let said = chain(&failure(ask(&scene, &server()).await));
    assert!(said.contains("403 to sign: no\\u{1b}[31m"), "{said}");
    assert!(
        said.len() < 1_000 && said.ends_with("[cut]") && !said.contains(char::is_control),
        "{} bytes",
        said.len()
    );
}

#[tokio::test]
async fn no_token_for_a_vault_has_an_audience_of_the_api_server() {
    let (scene, vault) = (Scene::new().await, FakeVault::start().await);
    let account = json!({"metadata": {"namespace": "treasury", "name": "ledger-issuer"}});
    let account: ServiceAccount = serde_json::from_value(account).unwrap();
    scene.cluster.create(&account).await.unwrap();
    let at = ObjectRef::new("treasury", "ledger-issuer");
    let known = scene
        .cluster
        .api_audiences(&at, 600)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        Vec::from_iter(known),
        ["https://kubernetes.default.svc.cluster.local"]
    );
    for audience in [
        "https://kubernetes.default.svc.cluster.local",
        "https://kubernetes.default.svc",
        " HTTPS://Kubernetes.Default.svc.cluster.local/ ",
        "kubernetes.default.svc",
        "api",
        "",
        " ",
    ] {
        let scene = Scene::new().await;
        scene.cluster.create(&account).await.unwrap();
        let way = json!({"kubernetes": {"role": "purser", "serviceAccountRef": {
            "name": "ledger-issuer", "audiences": ["more", audience],
        }}});
        scene.issuer(vault.spec(&way)).await;
        let error = failure(ask(&scene, &server()).await);
        let said = chain(&error);
        assert_eq!(error.retry(), Retry::WhenChanged);
        for words in [
            "serviceAccountRef.audiences",
            &format!("{audience:?}"),
            "vault://treasury/mint",
        ] {
            assert!(said.contains(words), "{words} is not in: {said}");
        }
    }
}

#[tokio::test]
async fn a_daemon_that_may_not_ask_for_a_token_says_which_role_to_write() {
    let (mut scene, vault) = (Scene::new().await, FakeVault::start().await);
    let way = json!({"kubernetes": {"role": "purser", "serviceAccountRef": {"name": "login"}}});
    scene.issuer(vault.spec(&way)).await;
    let daemon = User::service_account("bouncert-system", "bouncert");
    let rules = json!([{
        "apiGroups": ["cert-manager.io"], "resources": ["issuers"], "verbs": ["get"],
    }]);
    let role = json!({"metadata": {"name": "bouncert"}, "rules": rules});
    let role: k8s_openapi::api::rbac::v1::ClusterRole = serde_json::from_value(role).unwrap();
    let binding: k8s_openapi::api::rbac::v1::ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": "bouncert"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "bouncert"},
        "subjects": [{
            "kind": "ServiceAccount", "namespace": "bouncert-system", "name": "bouncert",
        }],
    }))
    .unwrap();
    let client = scene.cluster.client().clone();
    let params = kube::api::PostParams::default();
    kube::Api::all(client.clone())
        .create(&params, &role)
        .await
        .unwrap();
    kube::Api::all(client)
        .create(&params, &binding)
        .await
        .unwrap();
    scene.cluster = Cluster::new(scene.server.client_as(&daemon));
    let error = failure(ask(&scene, &server()).await);
    let said = chain(&error);
    assert_eq!(
        (error.reason(), error.retry()),
        ("IssuerTokenForbidden", Retry::Backoff)
    );
    for words in [
        "ServiceAccount treasury/login",
        "write a Role in namespace treasury",
        "serviceaccounts/token",
        "resourceNames [login]",
        "system:serviceaccount:bouncert-system:bouncert",
    ] {
        assert!(said.contains(words), "{words} is not in: {said}");
    }
}
