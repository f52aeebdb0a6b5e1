//! Roles decide: who holds a ServiceAccount's token may do what they say, and no more.

use bouncert::local::apiserver::access::User;
use bouncert::local::apiserver::{ApiServer, Options};
use bouncert::local::store::Store;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::kubectl::{kubectl, with_kubectl};
use super::{config, namespaced, parsed, refused};

fn account() -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "clerk", "namespace": "books"}})
}

fn role(verbs: &[&str]) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "clerks", "namespace": "books"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs}]})
}

fn binding() -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "clerks", "namespace": "books"},
        "subjects": [{"kind": "ServiceAccount", "name": "clerk", "namespace": "books"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "clerks"}})
}

/// A server on which the clerk of `books` may `verbs` the config maps there.
async fn with_clerk(verbs: &[&str]) -> ApiServer {
    let server = ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap();
    let client = server.client();
    namespaced(&client, "books").await;
    let params = PostParams::default();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "books");
    accounts.create(&params, &parsed(account())).await.unwrap();
    let roles: Api<Role> = Api::namespaced(client.clone(), "books");
    roles.create(&params, &parsed(role(verbs))).await.unwrap();
    let bindings: Api<RoleBinding> = Api::namespaced(client, "books");
    bindings.create(&params, &parsed(binding())).await.unwrap();
    server
}

#[tokio::test]
async fn a_role_allows_what_it_says_where_it_says_it_and_the_ledger_knows() {
    let server = with_clerk(&["get", "list"]).await;
    let client = server.client_as(&User::service_account("books", "clerk"));
    let here: Api<ConfigMap> = Api::namespaced(client.clone(), "books");
    here.list(&ListParams::default()).await.unwrap();
    let everywhere: Api<ConfigMap> = Api::all(client);
    let status = refused(everywhere.list(&ListParams::default()).await.unwrap_err());
    assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        status.message,
        "configmaps is forbidden: User \"system:serviceaccount:books:clerk\" cannot list resource \
         \"configmaps\" in API group \"\" at the cluster scope"
    );
    let ledger = server.ledger();
    let used: Vec<String> = ledger.used.iter().map(ToString::to_string).collect();
    assert_eq!(used, ["Role/clerks: list configmaps"]);
    assert_eq!(ledger.denied.len(), 1);
}

#[tokio::test]
async fn an_apply_that_creates_needs_both_verbs() {
    let apply = async |verbs: &[&str]| {
        let server = with_clerk(verbs).await;
        let client = server.client_as(&User::service_account("books", "clerk"));
        let maps: Api<ConfigMap> = Api::namespaced(client, "books");
        let params = PatchParams::apply("clerk");
        maps.patch("ledger", &params, &Patch::Apply(config("ledger", "a")))
            .await
    };
    let status = refused(apply(&["patch"]).await.unwrap_err());
    assert!(
        status.message.contains("cannot create"),
        "{}",
        status.message
    );
    apply(&["patch", "create"]).await.unwrap();
}

#[tokio::test]
async fn kubectl_is_who_its_token_says_until_the_account_is_gone() {
    let Some(served) = with_kubectl().await else {
        return;
    };
    for object in [account(), role(&["get", "list"]), binding()] {
        kubectl(&served, &["apply"], Some(&object)).await;
    }
    let create = ["create", "token", "clerk", "-n", "books"];
    let token = kubectl(&served, &create, None).await.trim().to_owned();
    let clerk = served.kubeconfig_with(&token);
    let may = |verb: &'static str, who: &'static [&'static str]| {
        let words = ["auth", "can-i", verb, "configmaps", "-n", "books"];
        words
            .into_iter()
            .chain(who.iter().copied())
            .collect::<Vec<_>>()
    };
    let answer = |words: Vec<&'static str>| {
        let served = &served;
        async move { super::kubectl::said(served, &served.kubeconfig(), &words).await }
    };
    let as_clerk = &["--as=system:serviceaccount:books:clerk"];
    assert_eq!(answer(may("list", as_clerk)).await, "yes");
    assert_eq!(answer(may("delete", as_clerk)).await, "no");

    let get = ["get", "configmaps", "-n", "books"];
    let seen = super::kubectl::said(&served, &clerk, &get).await;
    assert_eq!(seen, "No resources found in books namespace.");
    let seen = super::kubectl::said(&served, &clerk, &["get", "secrets", "-n", "books"]).await;
    assert!(seen.contains("cannot list resource \"secrets\""), "{seen}");
    let who = super::kubectl::said(&served, &clerk, &["auth", "whoami"]).await;
    assert!(who.contains("system:serviceaccount:books:clerk"), "{who}");
    let rules = super::kubectl::said(&served, &clerk, &["auth", "can-i", "--list", "-n", "books"]);
    let rules = rules.await;
    assert!(rules.contains("configmaps"), "{rules}");

    kubectl(
        &served,
        &["delete", "serviceaccount/clerk", "-n", "books"],
        None,
    )
    .await;
    let seen = super::kubectl::said(&served, &clerk, &get).await;
    assert!(
        seen.contains("Unauthorized") || seen.contains("logged in"),
        "{seen}"
    );
    served.end().await;
}
