//! The AppBinding by which applications find the pooler
//! (docs/kubedb-compatibility.md, "AppBinding").

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::ResourceExt;

use super::certificates::is_wanted;
use super::inputs::Inputs;
use super::{labels, metadata, names};
use crate::api::AppBinding;
use crate::api::appbinding::{AppBindingSpec, AppRef, ClientConfig, ServiceReference};
use crate::api::common::TypedRef;
use crate::api::tls::SslMode;
use crate::names::Alias;

/// The AppBinding.
pub(super) fn binding(inputs: &Inputs) -> AppBinding {
    let bouncer = &inputs.bouncer;
    let name = bouncer.name_any();
    let mode = bouncer.spec.ssl_mode.unwrap_or(SslMode::Disable);
    let ca_bundle = inputs
        .material
        .as_ref()
        .map(|material| STANDARD.encode(&material.ca_bundle));
    let tls_secret = is_wanted(bouncer, Alias::Client)
        .then(|| secret(names::certificate_secret(bouncer, Alias::Client)));
    let mut metadata = metadata(bouncer, name.clone());
    let annotations = labels::carried_annotations(bouncer);
    metadata.annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
    AppBinding {
        metadata,
        spec: AppBindingSpec {
            type_: Some("kubedb.com/pgbouncer".to_owned()),
            version: Some(inputs.program.name.clone()),
            app_ref: Some(AppRef {
                api_group: Some("kubedb.com".to_owned()),
                kind: Some("PgBouncer".to_owned()),
                namespace: bouncer.namespace(),
                name: name.clone(),
            }),
            client_config: ClientConfig {
                service: Some(ServiceReference {
                    scheme: "postgresql".to_owned(),
                    namespace: None,
                    name,
                    port: names::SERVICE_PORT,
                    path: Some("/".to_owned()),
                    query: Some(format!("sslmode={}", mode.as_str())),
                }),
                ca_bundle,
                ..ClientConfig::default()
            },
            secret: Some(secret(names::auth_secret(bouncer))),
            tls_secret,
            ..AppBindingSpec::default()
        },
    }
}

fn secret(name: String) -> TypedRef {
    TypedRef {
        api_group: String::new(),
        kind: "Secret".to_owned(),
        name,
    }
}
