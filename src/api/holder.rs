//! Who holds a Secret: the controller that its owner references name, or the cert-manager
//! `Certificate` that writes it.
//!
//! By default cert-manager sets no owner reference on what it writes. What shows its hand is its
//! annotation, which Bouncert sets as well, together with whoever wrote the
//! certificate last.

use std::fmt;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;

use super::annotations::REVISION;

/// cert-manager's: name of the `Certificate`.
const CERTIFICATE_NAME: &str = "cert-manager.io/certificate-name";
/// Field managers of cert-manager's controllers of Certificates begin so.
const CERT_MANAGER: &str = "cert-manager-certificates";

/// Somebody who holds a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// The controller of an object.
pub fn controller<K: ResourceExt>(object: &K) -> Option<Holder> {
    controller_reference(object).map(|owner| Holder {
        kind: owner.kind.clone(),
        name: owner.name.clone(),
    })
}

/// The owner reference that names the controller of an object.
pub fn controller_reference<K: ResourceExt>(object: &K) -> Option<&OwnerReference> {
    let mut owners = object.owner_references().iter();
    owners.find(|owner| owner.controller == Some(true))
}

/// Whether the object with that UID is the controller.
pub fn is_controlled_by<K: ResourceExt>(object: &K, uid: &str) -> bool {
    !uid.is_empty() && controller_reference(object).is_some_and(|owner| owner.uid == uid)
}

/// The `Certificate` in whose name cert-manager has written a Secret: over what Bouncert had
/// published, or before Bouncert has published anything in it.
pub fn certificate(secret: &Secret) -> Option<Holder> {
    let name = secret.annotations().get(CERTIFICATE_NAME)?;
    let is_ours = secret.annotations().contains_key(REVISION);
    (!is_ours || is_written_by_cert_manager(secret)).then(|| Holder {
        kind: "Certificate".to_owned(),
        name: name.clone(),
    })
}

fn is_written_by_cert_manager(secret: &Secret) -> bool {
    secret.managed_fields().iter().any(|entry| {
        let fields = entry.fields_v1.as_ref();
        entry
            .manager
            .as_deref()
            .is_some_and(|manager| manager.starts_with(CERT_MANAGER))
            && fields.is_some_and(|fields| fields.0.pointer("/f:data/f:tls.crt").is_some())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn secret(metadata: &Value) -> Secret {
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    fn written_by(manager: &str) -> Value {
        json!([
            { "manager": "bouncert", "fieldsV1": { "f:metadata": {}, "f:data": { "f:ca.crt": {} } } },
            { "manager": manager, "fieldsV1": { "f:data": { ".": {}, "f:tls.crt": {} } } },
        ])
    }

    #[test]
    fn a_certificate_holds_what_cert_manager_wrote_last_or_alone() {
        let named = |secret: &Secret| certificate(secret).map(|holder| holder.to_string());
        let ours = json!({ CERTIFICATE_NAME: "billing-server-cert", REVISION: "3" });
        let theirs = json!({ CERTIFICATE_NAME: "billing" });

        let published = json!({ "annotations": ours, "managedFields": written_by("bouncert") });
        assert_eq!(named(&secret(&published)), None);
        assert_eq!(named(&secret(&json!({ "annotations": ours }))), None);
        let over = written_by("cert-manager-certificates-issuing");
        let over = json!({ "annotations": ours, "managedFields": over });
        assert_eq!(
            named(&secret(&over)).as_deref(),
            Some("Certificate billing-server-cert")
        );
        let before = secret(&json!({ "annotations": theirs }));
        assert_eq!(named(&before).as_deref(), Some("Certificate billing"));
        // It labels Secrets for its own cache, and that makes them nobody's.
        let touched = json!([{
            "manager": "cert-manager-certificates-issuing",
            "fieldsV1": { "f:metadata": { "f:labels": {} } },
        }]);
        let touched = json!({ "annotations": ours, "managedFields": touched });
        assert_eq!(named(&secret(&touched)), None);
        assert_eq!(named(&secret(&json!({}))), None);
    }
}
