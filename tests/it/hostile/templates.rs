//! Valid objects of our APIs, which are then changed.

use serde_json::{Value, json};

use super::objects::Maker;

impl Maker {
    /// A valid object of that kind.
    pub(super) fn valid(&mut self, kind: &str) -> Value {
        match kind {
            "PgBouncer" => json!({
                "apiVersion": "kubedb.com/v1", "kind": kind,
                "spec": {
                    "version": "1.24.0", "replicas": 1, "sslMode": "verify-full",
                    "database": {
                        "databaseName": "postgres",
                        "databaseRef": {"name": self.name(), "namespace": self.namespace()},
                    },
                    "tls": {"issuerRef": {
                        "apiGroup": "cert-manager.io", "kind": "Issuer", "name": self.name(),
                    }},
                },
            }),
            "PgBouncerOpsRequest" => json!({
                "apiVersion": "ops.kubedb.com/v1alpha1", "kind": kind,
                "spec": {
                    "type": "ReconfigureTLS", "databaseRef": {"name": self.name()},
                    "tls": {"rotateCertificates": true}, "apply": "Always",
                },
            }),
            "AppBinding" => json!({
                "apiVersion": "appcatalog.appscode.com/v1alpha1", "kind": kind,
                "spec": {
                    "type": "kubedb.com/postgres", "secret": {"name": self.name()},
                    "clientConfig": {"url": self.text()},
                },
            }),
            "Issuer" => json!({
                "apiVersion": "cert-manager.io/v1", "kind": kind,
                "spec": {"ca": {"secretName": self.name()}},
            }),
            _ => json!({
                "apiVersion": "cert-manager.io/v1", "kind": kind,
                "spec": {
                    "request": "bm90IGEgcmVxdWVzdA==",
                    "issuerRef": {"group": "example.org", "kind": "Lighthouse", "name": self.name()},
                },
            }),
        }
    }
}
