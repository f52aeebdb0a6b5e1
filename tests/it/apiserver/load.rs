//! Strangers and tenants that ask for much: what they get is bounded, and others are served.

use std::path::Path;

use http::{Request, StatusCode};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::kubectl::{client, served};
use super::{config, eventually, namespaced, parsed, server};

/// Larger than any bound of connections.
const MANY: usize = 1_300;

pub(super) async fn raw(client: &Client, request: Request<Vec<u8>>) -> (StatusCode, Value) {
    let response = client
        .send(request.map(kube::client::Body::from))
        .await
        .unwrap();
    let code = response.status();
    let body = http_body_util::BodyExt::collect(response.into_body());
    let body = body.await.unwrap().to_bytes();
    (code, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

pub(super) async fn post(client: &Client, path: &str, object: &Value) -> (StatusCode, Value) {
    let request = Request::post(path).body(object.to_string().into_bytes());
    raw(client, request.unwrap()).await
}

pub(super) async fn patch(
    client: &Client,
    path: &str,
    kind: &str,
    body: &Value,
) -> (StatusCode, Value) {
    let request = Request::patch(path)
        .header("content-type", format!("application/{kind}"))
        .body(body.to_string().into_bytes());
    raw(client, request.unwrap()).await
}

/// The test holds both ends of each connection.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_keep_nobody_out() {
    raise_descriptor_limit();
    let served = served().await;
    let address = served.address();
    let mut silent = Vec::new();
    for _ in 0..MANY {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let client = client(&served.kubeconfig()).await;
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    for _ in 0..3 {
        maps.list(&ListParams::default()).await.unwrap();
    }
    // Those that had to make room are closed.
    let closed = |socket: &TcpStream| matches!(socket.try_read(&mut [0; 1]), Ok(0));
    eventually("the oldest to be closed", async || {
        silent[..MANY - 600].iter().all(closed).then_some(())
    })
    .await;
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watches_of_one_tenant_leave_room_for_others() {
    raise_descriptor_limit();
    let served = served().await;
    let admin = client(&served.kubeconfig()).await;
    let mut tokens = Vec::new();
    for namespace in ["books", "shops"] {
        namespaced(&admin, namespace).await;
        tokens.push(token_of_reader(&admin, namespace).await);
    }
    let books = impatient(&served.kubeconfig_with(&tokens[0])).await;
    let watch = "/api/v1/namespaces/books/configmaps?watch=true";
    let mut watches = Vec::new();
    let refused = loop {
        let request = Request::get(watch).body(Vec::new()).unwrap();
        let response = books
            .send(request.map(kube::client::Body::from))
            .await
            .unwrap();
        if response.status() != StatusCode::OK {
            break response.status();
        }
        watches.push(response.into_body());
        assert!(watches.len() < MANY, "no bound");
    };
    assert_eq!(refused, StatusCode::TOO_MANY_REQUESTS);
    assert!(watches.len() >= 200, "{} are too few", watches.len());
    let shops = client(&served.kubeconfig_with(&tokens[1])).await;
    for (client, namespace) in [(&shops, "shops"), (&admin, "books")] {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        maps.list(&ListParams::default()).await.unwrap();
    }
    // What goes is given back.
    drop(watches);
    let maps: Api<ConfigMap> = Api::namespaced(books, "books");
    eventually("room for the tenant", async || {
        maps.list(&ListParams::default()).await.ok().map(drop)
    })
    .await;
    served.end().await;
}

/// A client that shows a refusal instead of trying again.
async fn impatient(kubeconfig: &Path) -> Client {
    let config = Kubeconfig::read_from(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(config, &options);
    let mut config = config.await.unwrap();
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// A token of an account that reads the config maps of its namespace.
async fn token_of_reader(admin: &Client, namespace: &str) -> String {
    let at = format!("/namespaces/{namespace}");
    let rbac = format!("/apis/rbac.authorization.k8s.io/v1{at}");
    let group = "rbac.authorization.k8s.io";
    for (path, object) in [
        (
            format!("/api/v1{at}/serviceaccounts"),
            json!({"metadata": {"name": "clerk"}}),
        ),
        (
            format!("{rbac}/roles"),
            json!({"metadata": {"name": "clerk"}, "rules": [{"apiGroups": [""],
                "resources": ["configmaps"], "verbs": ["list", "watch"]}]}),
        ),
        (
            format!("{rbac}/rolebindings"),
            json!({"metadata": {"name": "clerk"},
                "roleRef": {"apiGroup": group, "kind": "Role", "name": "clerk"},
                "subjects": [{"kind": "ServiceAccount", "name": "clerk", "namespace": namespace}]}),
        ),
    ] {
        assert_eq!(post(admin, &path, &object).await.0, StatusCode::CREATED);
    }
    let path = format!("/api/v1{at}/serviceaccounts/clerk/token");
    let (_, answer) = post(admin, &path, &json!({"spec": {}})).await;
    answer["status"]["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_patch_that_multiplies_the_object_is_refused_and_changes_nothing() {
    let client = server().client();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let large = config("ledger", &"x".repeat(100));
    maps.create(&PostParams::default(), &large).await.unwrap();
    let path = "/api/v1/namespaces/default/configmaps/ledger";
    let copies: Vec<Value> = (0..40)
        .map(|n| json!({"op": "copy", "from": "/metadata", "path": format!("/metadata/n{n}")}))
        .collect();
    let (code, answer) = patch(&client, path, "json-patch+json", &json!(copies)).await;
    assert_eq!(
        (code.as_u16(), &answer["reason"]),
        (413, &json!("RequestEntityTooLarge"))
    );
    let test = json!({"op": "test", "path": "/kind", "value": "ConfigMap"});
    let (code, answer) = patch(&client, path, "json-patch+json", &json!(vec![test; 10_001])).await;
    assert_eq!(code.as_u16(), 413);
    assert!(
        answer["message"].as_str().unwrap().contains("10001"),
        "{answer}"
    );
    let deep: Vec<Value> = (1..150)
        .map(|n| json!({"op": "add", "path": format!("/metadata{}", "/a".repeat(n)), "value": {}}))
        .collect();
    let (code, _) = patch(&client, path, "json-patch+json", &json!(deep)).await;
    assert_eq!(code.as_u16(), 413);
    let after = maps.get("ledger").await.unwrap();
    assert_eq!(after.data, large.data);
}

#[tokio::test]
async fn an_object_grows_to_the_bound_of_etcd_and_no_further() {
    let client = server().client();
    let path = "/api/v1/namespaces/default/configmaps";
    let part = "x".repeat(500 * 1024);
    let object = json!({"metadata": {"name": "ledger"}, "data": {"a": part, "b": part}});
    assert_eq!(post(&client, path, &object).await.0, StatusCode::CREATED);
    let one = format!("{path}/ledger");
    for kind in [
        "merge-patch+json",
        "strategic-merge-patch+json",
        "apply-patch+yaml",
    ] {
        let more = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "ledger"}, "data": {"c": part, "d": part}});
        let at = format!("{one}?fieldManager=m&force=true");
        let (code, answer) = patch(&client, &at, kind, &more).await;
        assert_eq!(code.as_u16(), 413, "{kind} {}", answer["message"]);
    }
    let (code, _) = post(
        &client,
        path,
        &json!({"metadata": {"name": "second"},
        "data": {"a": part, "b": part, "c": part, "d": part}}),
    )
    .await;
    assert_eq!(code.as_u16(), 413);
    let (code, _) = patch(
        &client,
        &one,
        "merge-patch+json",
        &json!({"data": {"a": null}}),
    )
    .await;
    assert_eq!(code.as_u16(), 200);
}

#[tokio::test]
async fn objects_with_thousands_of_items_are_merged() {
    let client = server().client();
    let services = "/api/v1/namespaces/default/services";
    let ports = |protocol: &str| -> Vec<Value> {
        (1..=3_000)
            .map(|n| json!({"name": format!("p{n}"), "port": n, "protocol": protocol}))
            .collect()
    };
    let spec = json!({"metadata": {"name": "till"}, "spec": {"ports": ports("TCP")}});
    assert_eq!(post(&client, services, &spec).await.0, StatusCode::CREATED);
    let one = format!("{services}/till?fieldManager=m&force=true");
    for kind in [
        "strategic-merge-patch+json",
        "apply-patch+yaml",
        "merge-patch+json",
    ] {
        let object = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "till"}, "spec": {"ports": ports("TCP")}});
        let (code, answer) = patch(&client, &one, kind, &object).await;
        assert_eq!(code, StatusCode::OK, "{kind} {}", answer["message"]);
        assert_eq!(answer["spec"]["ports"].as_array().unwrap().len(), 3_000);
    }
    let finalizers: Vec<String> = (0..40_000).map(|n| format!("a.b/{n}")).collect();
    let maps = "/api/v1/namespaces/default/configmaps";
    let object = json!({"metadata": {"name": "held", "finalizers": finalizers}});
    assert_eq!(post(&client, maps, &object).await.0, StatusCode::CREATED);
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let (code, _) = patch(&client, &format!("{maps}/held"), "merge-patch+json", &label).await;
    assert_eq!(code, StatusCode::OK);
}

#[tokio::test]
async fn numbers_beyond_their_bounds_are_refused_and_nothing_panics() {
    let server = server();
    let client = server.client();
    let stop = tokio_util::sync::CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    let (collector, token) = (server.clone(), stop.clone());
    tasks.spawn(async move { collector.collect_garbage(token).await });
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |name: &str, grace: i64| {
        json!({"metadata": {"name": name}, "spec": {"nodeName": "n",
            "terminationGracePeriodSeconds": grace, "containers": [{"name": "main", "image": "i"}]}})
    };
    for grace in [i64::MAX, i64::from(i32::MAX) + 1, -1] {
        let (code, answer) = post(&client, pods, &pod("a", grace)).await;
        assert_eq!(code.as_u16(), 422, "{answer}");
    }
    assert_eq!(
        post(&client, pods, &pod("a", 7)).await.0,
        StatusCode::CREATED
    );
    let delete = |query: &str, body: Value| {
        let uri = format!("{pods}/a{query}");
        Request::delete(uri)
            .body(body.to_string().into_bytes())
            .unwrap()
    };
    for request in [
        delete(&format!("?gracePeriodSeconds={}", i64::MAX), json!({})),
        delete("", json!({"gracePeriodSeconds": i64::MAX - 1})),
    ] {
        let (code, answer) = raw(&client, request).await;
        assert_eq!(code.as_u16(), 422, "{answer}");
    }
    let eviction = json!({"metadata": {"name": "a"},
        "deleteOptions": {"gracePeriodSeconds": i64::MAX}});
    let (code, _) = post(&client, &format!("{pods}/a/eviction"), &eviction).await;
    assert_eq!(code.as_u16(), 422);
    let watch = format!("{pods}?watch=true&timeoutSeconds={}", u64::MAX);
    let request = Request::get(watch).body(Vec::new()).unwrap();
    let answer = client
        .send(request.map(kube::client::Body::from))
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let sets = "/apis/apps/v1/namespaces/default/statefulsets";
    for replicas in [-1_i64, i64::MAX] {
        let set = json!({"metadata": {"name": "s"}, "spec": {"replicas": replicas,
            "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "main", "image": "i"}]}}}});
        let (code, answer) = post(&client, sets, &set).await;
        assert!(matches!(code.as_u16(), 400 | 422), "{answer}");
    }
    for port in [0_i64, -1, 65_536] {
        let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": port}]}});
        let path = "/api/v1/namespaces/default/services";
        let (code, answer) = post(&client, path, &service).await;
        assert_eq!(code.as_u16(), 422, "{answer}");
    }
    // Garbage is still collected.
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let owned = parsed(json!({"metadata": {"name": "orphan", "ownerReferences": [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "gone"}]}}));
    maps.create(&PostParams::default(), &owned).await.unwrap();
    eventually("the orphan to go", async || {
        maps.get_opt("orphan")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    stop.cancel();
    while tasks.join_next().await.is_some() {}
}

#[tokio::test]
async fn a_malformed_selector_is_refused_by_every_verb_and_deletes_nothing() {
    let client = server().client();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    maps.create(&PostParams::default(), &config("ledger", "a"))
        .await
        .unwrap();
    let path = "/api/v1/namespaces/default/configmaps";
    let many = vec!["a"; 9_000].join(",");
    for query in [
        "labelSelector=,",
        "labelSelector=a,",
        "labelSelector=book%20a",
        "labelSelector=a%20in%20(b",
        "labelSelector=!",
        "fieldSelector=nonsense",
        "fieldSelector=spec.nodeName%3Dx",
        &format!("labelSelector={many}"),
    ] {
        for (method, extra) in [("GET", ""), ("GET", "&watch=true"), ("DELETE", "")] {
            let request = Request::builder()
                .method(method)
                .uri(format!("{path}?{query}{extra}"))
                .body(Vec::new());
            let (code, answer) = raw(&client, request.unwrap()).await;
            let shown: String = query.chars().take(60).collect();
            assert_eq!(code.as_u16(), 400, "{method} {shown} {answer}");
        }
    }
    assert!(maps.get_opt("ledger").await.unwrap().is_some());
    let request = Request::delete(format!("{path}?labelSelector=book%3Dother")).body(Vec::new());
    assert_eq!(raw(&client, request.unwrap()).await.0, StatusCode::OK);
    assert!(maps.get_opt("ledger").await.unwrap().is_some());
}

#[tokio::test]
async fn a_foreground_deletion_waits_for_no_object_of_another_namespace() {
    let server = server();
    let client = server.client();
    let stop = tokio_util::sync::CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    let (collector, token) = (server.clone(), stop.clone());
    tasks.spawn(async move { collector.collect_garbage(token).await });
    namespaced(&client, "books").await;
    let here: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let there: Api<ConfigMap> = Api::namespaced(client, "books");
    let owner = here
        .create(&PostParams::default(), &config("owner", "a"))
        .await
        .unwrap();
    let dependent = parsed(
        json!({"metadata": {"name": "stranger", "finalizers": ["a.b/stay"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner",
            "uid": owner.metadata.uid, "blockOwnerDeletion": true}]}}),
    );
    there
        .create(&PostParams::default(), &dependent)
        .await
        .unwrap();
    here.delete("owner", &DeleteParams::foreground())
        .await
        .unwrap();
    eventually("the owner to go", async || {
        here.get_opt("owner").await.unwrap().is_none().then_some(())
    })
    .await;
    assert!(there.get_opt("stranger").await.unwrap().is_some());
    stop.cancel();
    while tasks.join_next().await.is_some() {}
}
