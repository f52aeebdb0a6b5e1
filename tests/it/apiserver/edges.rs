//! The edges of the API: both faces of events, other patches, limits, logs, raw requests.

use std::sync::Arc;

use bouncert::local::apiserver::{LogError, LogRequest, LogStream, PodLogs};
use futures::StreamExt;
use futures::future::BoxFuture;
use http::{Request, StatusCode};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Service};
use k8s_openapi::api::events::v1::Event as NewEvent;
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams, PostParams,
};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::{config, parsed, pod, refused, server};

/// Sends a request as it is, and reads the answer's code and JSON.
async fn raw(client: &Client, request: Request<Vec<u8>>) -> (StatusCode, Value) {
    let response = client
        .send(request.map(kube::client::Body::from))
        .await
        .unwrap();
    let code = response.status();
    let body = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap()
        .to_bytes();
    (code, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn an_event_written_by_a_controller_is_found_by_describe() {
    let client = server().client();
    let new: Api<NewEvent> = Api::namespaced(client.clone(), "default");
    let event = parsed(json!({
        "metadata": {"name": "main.1"}, "eventTime": "2031-01-01T00:00:00.000000Z",
        "regarding": {"kind": "Ledger", "name": "main", "namespace": "default"},
        "reason": "Rotated", "note": "revision 7 is served", "type": "Normal",
        "action": "Rotate", "reportingController": "bouncert", "reportingInstance": "b-0",
    }));
    new.create(&PostParams::default(), &event).await.unwrap();
    let old: Api<Event> = Api::namespaced(client, "default");
    let about = ListParams::default().fields("involvedObject.kind=Ledger,involvedObject.name=main");
    let found = old.list(&about).await.unwrap().items;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].message.as_deref(), Some("revision 7 is served"));
    let other = ListParams::default().fields("involvedObject.name=other");
    assert!(old.list(&other).await.unwrap().items.is_empty());
    let again = new
        .list(&ListParams::default().fields("regarding.name=main"))
        .await
        .unwrap();
    assert_eq!(again.items[0].note.as_deref(), Some("revision 7 is served"));
}

#[tokio::test]
async fn a_json_patch_whose_test_fails_changes_nothing() {
    let api: Api<ConfigMap> = Api::namespaced(server().client(), "default");
    api.create(&PostParams::default(), &config("ledger", "a"))
        .await
        .unwrap();
    let patch = |expected: &str| {
        let patch = serde_json::from_value(json!([
            {"op": "test", "path": "/data/text", "value": expected},
            {"op": "replace", "path": "/data/text", "value": "b"},
        ]));
        Patch::<()>::Json(patch.unwrap())
    };
    let status = refused(
        api.patch("ledger", &PatchParams::default(), &patch("x"))
            .await
            .unwrap_err(),
    );
    assert_eq!(status.code, 422);
    let changed = api
        .patch("ledger", &PatchParams::default(), &patch("a"))
        .await
        .unwrap();
    assert_eq!(changed.data.unwrap()["text"], "b");
}

#[tokio::test]
async fn a_strategic_patch_merges_containers_by_name() {
    let api: Api<Pod> = Api::namespaced(server().client(), "default");
    api.create(&PostParams::default(), &pod("ledger-0", "ledger"))
        .await
        .unwrap();
    let patch = Patch::Strategic(json!({
        "spec": {"containers": [{"name": "main", "image": "other"}]},
    }));
    let changed = api
        .patch("ledger-0", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let containers = changed.spec.unwrap().containers;
    assert_eq!(
        (containers.len(), containers[0].image.as_deref()),
        (1, Some("other"))
    );
    assert_eq!(
        containers[0].image_pull_policy.as_deref(),
        Some("IfNotPresent"),
        "kept"
    );
}

#[tokio::test]
async fn a_collection_is_deleted_by_its_selector() {
    let api: Api<ConfigMap> = Api::namespaced(server().client(), "default");
    for (name, text) in [("one", "a"), ("two", "a"), ("three", "b")] {
        api.create(&PostParams::default(), &config(name, text))
            .await
            .unwrap();
    }
    let chosen = ListParams::default().labels("book in (a)");
    api.delete_collection(&DeleteParams::default(), &chosen)
        .await
        .unwrap();
    let left = api.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(
        left.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
        ["three"]
    );
}

#[tokio::test]
async fn a_custom_resource_is_replaced_only_by_its_known_revision() {
    let client = server().client();
    let definitions: Api<DynamicObject> = Api::all_with(
        client.clone(),
        &kube::api::ApiResource {
            group: "apiextensions.k8s.io".into(),
            version: "v1".into(),
            api_version: "apiextensions.k8s.io/v1".into(),
            kind: "CustomResourceDefinition".into(),
            plural: "customresourcedefinitions".into(),
        },
    );
    definitions
        .create(&PostParams::default(), &parsed(super::ledgers()))
        .await
        .unwrap();
    let collection = "/apis/books.example/v1/namespaces/default/ledgers";
    let ledger = json!({"metadata": {"name": "main"}, "spec": {"pages": 1}});
    let post = Request::post(collection)
        .body(ledger.to_string().into_bytes())
        .unwrap();
    assert_eq!(raw(&client, post).await.0, StatusCode::CREATED);
    let put = Request::put(format!("{collection}/main"));
    let (code, status) = raw(&client, put.body(ledger.to_string().into_bytes()).unwrap()).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        status["details"]["causes"][0]["field"],
        "metadata.resourceVersion"
    );
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_a_status() {
    let client = server().client();
    let path = "/api/v1/namespaces/default/configmaps";
    let huge = Request::post(path)
        .body(vec![b' '; 3 * 1024 * 1024 + 1])
        .unwrap();
    let (code, status) = raw(&client, huge).await;
    assert_eq!(
        (code, &status["reason"]),
        (
            StatusCode::PAYLOAD_TOO_LARGE,
            &json!("RequestEntityTooLarge")
        )
    );
    for (body, code) in [
        ("{", 400),
        ("[]", 400),
        (r#"{"kind":"Secret"}"#, 400),
        ("{}", 400),
    ] {
        let (found, status) = raw(&client, Request::post(path).body(body.into()).unwrap()).await;
        assert_eq!(
            (found.as_u16(), &status["kind"]),
            (code, &json!("Status")),
            "{body}"
        );
    }
    let text = Request::post(path)
        .header("content-type", "text/plain")
        .body(b"{}".to_vec());
    assert_eq!(
        raw(&client, text.unwrap()).await.0,
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
    for path in [
        "/api/v1/namespaces/default/gadgets",
        "/nowhere",
        "/apis/none.example/v1",
    ] {
        let (code, status) = raw(&client, Request::get(path).body(Vec::new()).unwrap()).await;
        assert_eq!(
            (code, &status["reason"]),
            (StatusCode::NOT_FOUND, &json!("NotFound")),
            "{path}"
        );
    }
    let name = Request::post(path)
        .body(br#"{"metadata":{"name":"Not_Good"}}"#.to_vec())
        .unwrap();
    assert_eq!(raw(&client, name).await.0, StatusCode::UNPROCESSABLE_ENTITY);
}

/// Says which log was asked for.
#[derive(Debug)]
struct Echo;

impl PodLogs for Echo {
    fn open(&self, request: LogRequest) -> BoxFuture<'_, Result<LogStream, LogError>> {
        Box::pin(async move {
            if request.previous {
                return Err(LogError::NotThere {
                    container: request.container,
                    pod: request.pod,
                    why: "it never ran before".into(),
                });
            }
            let line = format!(
                "{} {} {:?}\n",
                request.pod, request.container, request.tail_lines
            );
            let lines: LogStream = futures::stream::iter([Ok(line.into())]).boxed();
            Ok(lines)
        })
    }
}

#[tokio::test]
async fn logs_are_answered_by_whoever_runs_the_pods() {
    let server = server();
    let api: Api<Pod> = Api::namespaced(server.client(), "default");
    api.create(&PostParams::default(), &pod("ledger-0", "ledger"))
        .await
        .unwrap();
    let nobody = api
        .logs("ledger-0", &LogParams::default())
        .await
        .unwrap_err();
    assert_eq!(refused(nobody).code, 503);
    server.serve_logs_from(Arc::new(Echo));
    let tail = LogParams {
        tail_lines: Some(3),
        ..LogParams::default()
    };
    assert_eq!(
        api.logs("ledger-0", &tail).await.unwrap(),
        "ledger-0 main Some(3)\n"
    );
    let previous = LogParams {
        previous: true,
        ..LogParams::default()
    };
    let status = refused(api.logs("ledger-0", &previous).await.unwrap_err());
    assert!(
        status.code == 400 && status.message.contains("it never ran before"),
        "{status:?}"
    );
    let other = LogParams {
        container: Some("other".into()),
        ..LogParams::default()
    };
    assert_eq!(
        refused(api.logs("ledger-0", &other).await.unwrap_err()).code,
        400
    );
}

#[tokio::test]
async fn a_built_in_object_that_no_typed_reader_could_read_is_refused() {
    let client = server().client();
    let create = |query: &str, service: &Value| {
        let uri = format!("/api/v1/namespaces/default/services{query}");
        let body = serde_json::to_vec(service).unwrap();
        Request::post(uri)
            .header("content-type", "application/json")
            .body(body)
            .unwrap()
    };
    let service = |port: Value| {
        json!({"metadata": {"name": "shop", "creationTimestamp": null},
            "spec": {"ports": [{"port": port}], "portz": 1}})
    };
    let (code, status) = raw(&client, create("", &service(json!("web")))).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert_eq!(
        status["message"],
        "Service in version \"v1\" cannot be handled as a Service: json: cannot unmarshal string \
         into Go struct field Service.spec.ports.port of type int32"
    );
    let strict = create("?fieldValidation=Strict", &service(json!(80)));
    let (code, status) = raw(&client, strict).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert_eq!(
        status["message"],
        "Service in version \"v1\" cannot be handled as a Service: strict decoding error: unknown \
         field \"spec.portz\""
    );
    let (code, stored) = raw(&client, create("", &service(json!(80)))).await;
    assert_eq!(code, StatusCode::CREATED);
    assert_eq!(stored["spec"].get("portz"), None);
}

#[tokio::test]
async fn a_service_that_insists_on_two_families_is_refused_where_there_is_one() {
    let client = server().client();
    let services: Api<Service> = Api::namespaced(client, "default");
    let create = async |name: &str, spec: Value| {
        let service = json!({"metadata": {"name": name}, "spec": spec});
        let service = serde_json::from_value(service).unwrap();
        services.create(&PostParams::default(), &service).await
    };
    let ports = json!([{"port": 80}]);
    let spec = json!({"ports": ports, "ipFamilyPolicy": "PreferDualStack"});
    let spec = create("shop", spec).await.unwrap().spec.unwrap();
    assert_eq!(spec.ip_family_policy.as_deref(), Some("PreferDualStack"));
    assert_eq!(spec.ip_families, Some(vec!["IPv4".to_owned()]));
    for (field, value, words) in [
        (
            "ipFamilyPolicy",
            json!("RequireDualStack"),
            "not configured for dual-stack",
        ),
        ("ipFamilyPolicy", json!("Both"), "supported values"),
        (
            "ipFamilies",
            json!(["IPv6"]),
            "not configured on this cluster",
        ),
    ] {
        let spec = json!({"ports": ports, field: value});
        let refusal = refused(create("other", spec).await.unwrap_err());
        assert_eq!(refusal.reason, "Invalid");
        let message = &refusal.message;
        assert!(
            message.contains(field) && message.contains(words),
            "{message}"
        );
    }
}
