//! The backend Secret: who may log in, and the admin user by whom the image's own scripts do
//! (docs/kubedb-compatibility.md, "Users").

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::inputs::Inputs;
use super::{metadata, names};

/// The Secret.
pub(super) fn secret(inputs: &Inputs) -> Secret {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let data = [
        (
            names::USERLIST_KEY,
            bytes(inputs.userlist.render().expose()),
        ),
        ("username", bytes(&inputs.admin.username)),
        ("password", bytes(inputs.admin.password.expose())),
    ];
    Secret {
        metadata: metadata(
            &inputs.bouncer,
            names::backend_secret(&inputs.bouncer.name_any()),
        ),
        type_: Some("Opaque".to_owned()),
        data: Some(
            data.into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        ),
        ..Secret::default()
    }
}
