//! A user grants what it has, and a selector of fields stands for no name but in a list.

use bouncert::local::apiserver::access::User;
use bouncert::local::apiserver::{ApiServer, Options};
use bouncert::local::store::Store;
use http::{Request, StatusCode};
use kube::Client;
use serde_json::{Value, json};

use super::load::{patch, post, raw};
use super::namespaced;

/// A server on which the clerk of `books` has `rules`, and the clerk's client.
async fn with_rules(rules: Value) -> (Client, Client) {
    let server = ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap();
    let admin = server.client();
    namespaced(&admin, "books").await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/books";
    let role = json!({"metadata": {"name": "clerk"}, "rules": rules});
    assert_eq!(
        post(&admin, &format!("{rbac}/roles"), &role).await.0,
        StatusCode::CREATED
    );
    let binding = binding("clerk", "Role", "clerk");
    let (code, _) = post(&admin, &format!("{rbac}/rolebindings"), &binding).await;
    assert_eq!(code, StatusCode::CREATED);
    let clerk = server.client_as(&User::service_account("books", "clerk"));
    (admin, clerk)
}

fn binding(name: &str, kind: &str, role: &str) -> Value {
    json!({"metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": "clerk", "namespace": "books"}]})
}

fn rule(group: &str, resource: &str, verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": [resource], "verbs": verbs})
}

#[tokio::test]
async fn a_selector_of_fields_names_nothing_that_is_created() {
    let mut named = rule("", "configmaps", &["create", "deletecollection", "list"]);
    named["resourceNames"] = json!(["ledger"]);
    let (admin, clerk) = with_rules(json!([named])).await;
    let path = "/api/v1/namespaces/books/configmaps";
    let query = "fieldSelector=metadata.name%3Dledger";
    for name in ["ledger", "other"] {
        let object = json!({"metadata": {"name": name}});
        let (code, _) = post(&clerk, &format!("{path}?{query}"), &object).await;
        assert_eq!(code, StatusCode::FORBIDDEN);
    }
    let request = Request::delete(format!("{path}?{query}")).body(Vec::new());
    assert_eq!(raw(&clerk, request.unwrap()).await.0, StatusCode::FORBIDDEN);
    let request = Request::get(format!("{path}?{query}")).body(Vec::new());
    assert_eq!(raw(&clerk, request.unwrap()).await.0, StatusCode::OK);
    drop(admin);
}

#[tokio::test]
async fn a_user_grants_what_it_has_and_no_more() {
    let group = "rbac.authorization.k8s.io";
    let (admin, clerk) = with_rules(json!([
        rule("", "configmaps", &["get", "list"]),
        rule(group, "roles", &["create", "update", "patch", "get"]),
        rule(group, "rolebindings", &["create", "update", "patch", "get"]),
    ]))
    .await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/books";
    let (roles, bindings) = (format!("{rbac}/roles"), format!("{rbac}/rolebindings"));
    let role = |name: &str, rule: Value| json!({"metadata": {"name": name}, "rules": [rule]});
    let own = role("own", rule("", "configmaps", &["get"]));
    assert_eq!(post(&clerk, &roles, &own).await.0, StatusCode::CREATED);
    for more in [
        rule("", "secrets", &["get"]),
        rule("", "configmaps", &["delete"]),
        rule("", "configmaps", &["*"]),
        rule("*", "*", &["*"]),
    ] {
        let (code, answer) = post(&clerk, &roles, &role("more", more.clone())).await;
        assert_eq!(code, StatusCode::FORBIDDEN, "{more}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains("not currently held"), "{message}");
        let wider = json!({"apiVersion": format!("{group}/v1"), "kind": "Role",
            "metadata": {"name": "own"}, "rules": [more]});
        for kind in ["merge-patch+json", "apply-patch+yaml"] {
            let path = format!("{roles}/own?fieldManager=m&force=true");
            let (code, _) = patch(&clerk, &path, kind, &wider).await;
            assert_eq!(code, StatusCode::FORBIDDEN, "{kind} {more}");
        }
    }
    // A label changes no right.
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let (code, _) = patch(&clerk, &format!("{roles}/own"), "merge-patch+json", &label).await;
    assert_eq!(code, StatusCode::OK);

    let secrets = role("secrets", rule("", "secrets", &["get"]));
    assert_eq!(post(&admin, &roles, &secrets).await.0, StatusCode::CREATED);
    let (code, _) = post(&clerk, &bindings, &binding("own", "Role", "own")).await;
    assert_eq!(code, StatusCode::CREATED);
    for name in ["secrets", "to-be-made-later"] {
        let (code, _) = post(&clerk, &bindings, &binding("more", "Role", name)).await;
        assert_eq!(code, StatusCode::FORBIDDEN, "{name}");
    }
    let other = json!({"roleRef": binding("own", "Role", "secrets")["roleRef"]});
    let (code, answer) = patch(
        &admin,
        &format!("{bindings}/own"),
        "merge-patch+json",
        &other,
    )
    .await;
    assert_eq!(code.as_u16(), 422, "{answer}");
}

#[tokio::test]
async fn escalate_and_bind_are_rights_of_their_own() {
    let group = "rbac.authorization.k8s.io";
    let mut bind = rule(group, "clusterroles", &["bind"]);
    bind["resourceNames"] = json!(["readers"]);
    let (admin, clerk) = with_rules(json!([
        rule(group, "roles", &["create", "escalate"]),
        rule(group, "rolebindings", &["create"]),
        bind,
    ]))
    .await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    for (name, verb) in [("readers", "get"), ("others", "delete")] {
        let object = json!({"metadata": {"name": name}, "rules": [rule("", "secrets", &[verb])]});
        let (code, _) = post(&admin, &format!("{rbac}/clusterroles"), &object).await;
        assert_eq!(code, StatusCode::CREATED);
    }
    let wide = json!({"metadata": {"name": "wide"}, "rules": [rule("*", "*", &["*"])]});
    let (code, _) = post(&clerk, &format!("{rbac}/namespaces/books/roles"), &wide).await;
    assert_eq!(code, StatusCode::CREATED);
    let bindings = format!("{rbac}/namespaces/books/rolebindings");
    let (code, _) = post(&clerk, &bindings, &binding("a", "ClusterRole", "readers")).await;
    assert_eq!(code, StatusCode::CREATED);
    let (code, _) = post(&clerk, &bindings, &binding("b", "ClusterRole", "others")).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
}
