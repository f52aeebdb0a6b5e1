//! What watches ask the API server for: not more than matters to anybody here.

use kube::runtime::watcher;
use kube::{Api, Client};

use super::Namespaced;
use crate::api::annotations::REVISION_LABEL;
use crate::names::Area;

/// The objects of a kind in an area, for watches.
pub fn within<K: Namespaced>(client: &Client, area: &Area) -> Api<K> {
    match area {
        Area::Everywhere => Api::all(client.clone()),
        Area::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
    }
}

/// Secrets that may hold a certificate that is served: all but our own revisions, which are half of
/// ours, and Helm's releases, which are the bulk of everybody else's. Anybody may give a certificate,
/// under any type and with any labels, so nothing else is left out.
pub fn certificate_secrets() -> watcher::Config {
    watcher::Config::default()
        .labels(&format!("!{REVISION_LABEL}"))
        .fields("type!=helm.sh/release.v1")
}
