//! Objects that a tenant may write: valid ones with a few fields changed to values that hurt.
//!
//! The fields come from the schemas of the custom resource definitions, so that a field that is added
//! to an API is covered without a change here. Kinds of Kubernetes itself have templates of their own.
//! The same seed makes the same objects.

use bouncert::api::{annotations, crds};
use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::material::Material;
use super::{NEIGHBOUR, TENANT};

/// Fields of one object that are changed, at most.
const CHANGES_MAX: usize = 4;
/// Levels of a generated value, at most.
const DEPTH_MAX: usize = 4;
/// Longest text.
const TEXT_MAX: usize = 9_000;

/// Names of objects. Some are prefixes of others, some are the names that Bouncert derives.
const NAMES: [&str; 18] = [
    "web",
    "web-stats",
    "web-pods",
    "web-backend",
    "web-auth",
    "web-0",
    "web-1",
    "x",
    "x-stats",
    "x-server-cert",
    "x-client-cert",
    "x-server-cert-r1",
    "x-server-cert-r2",
    "x-server-cert-r2-key",
    "x-server-cert-r4294967295",
    "ledger",
    "ledger-ca",
    "shop",
];
/// Texts that some reader could take for something else.
const TEXTS: [&str; 34] = [
    "",
    " ",
    "*",
    "0",
    "-1",
    "true",
    "True",
    "sales 2026",
    "acme$prod",
    "bücher",
    "a'b",
    "a\"b",
    "a\nb",
    "a\r\n[pgbouncer]\r\nverbose = 3",
    "a;b#c",
    "%include x",
    "../../up",
    "%2Frun",
    "${HOME}",
    "{{ .Values }}",
    "\u{1b}[31mred\u{1b}[0m",
    "\u{202e}thgir",
    "\u{0}",
    "2031-01-01",
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00Z",
    "1h",
    "-1h",
    "2562047h47m16.854775807s",
    "0.0000000001s",
    "100%",
    "cron * * 31 2,4,6,9,11 *",
    "Mon-Sun 00:00-24:00 Europe/Berlin",
    "postgresql://127.0.0.1:1,127.0.0.1:2/db?sslmode=require",
];
/// Numbers at the ends of their types.
const NUMBERS: [i64; 13] = [
    0,
    1,
    -1,
    2,
    3,
    443,
    65_535,
    65_536,
    2_147_483_647,
    -2_147_483_648,
    4_294_967_296,
    i64::MAX,
    i64::MIN,
];
/// Annotations that the daemon obeys or writes.
const ANNOTATIONS: [&str; 20] = [
    annotations::DIGEST,
    annotations::LOADED,
    annotations::FILES_ASKED_AT,
    annotations::SETTLED,
    annotations::CLASS,
    annotations::STRATEGY,
    annotations::DRAIN_TIMEOUT,
    annotations::MAX_UNAVAILABLE,
    annotations::KEY_ALGORITHM,
    annotations::ROTATION_POLICY,
    annotations::OUTLIVING,
    annotations::CLAMPED,
    annotations::REVISION,
    annotations::FINGERPRINT,
    annotations::ISSUED,
    annotations::MAINTENANCE_WINDOW,
    annotations::FREEZE_ROTATION,
    annotations::CAUSE,
    annotations::ATTEMPT,
    annotations::AUTH_ACTIVE_FROM,
];
/// Kinds whose objects are generated, with the weight of each.
const KINDS: [(&str, u32); 15] = [
    ("Secret", 30),
    ("PgBouncer", 12),
    ("PgBouncerOpsRequest", 14),
    ("AppBinding", 8),
    ("Issuer", 8),
    ("ConfigMap", 6),
    ("Service", 4),
    ("EndpointSlice", 3),
    ("Pod", 3),
    ("StatefulSet", 3),
    ("PodDisruptionBudget", 3),
    ("ServiceAccount", 2),
    ("CertificateRequest", 2),
    ("Lease", 1),
    ("Event", 1),
];

/// What the tenant does with an object.
pub(super) enum Write {
    /// Server-side apply, by force.
    Apply(Value),
    /// Delete whatever has its kind and name.
    Delete(Value),
}

/// Makes objects.
pub(super) struct Maker {
    random: Rng,
    material: Material,
    schemas: Vec<(String, Value)>,
    /// UIDs that owner references may name: the neighbour's among them.
    owners: Vec<(String, String)>,
}

impl Maker {
    /// A maker of the objects of `seed`, whose owner references name `owners` (name and UID of
    /// PgBouncers).
    pub(super) fn new(seed: u64, owners: Vec<(String, String)>) -> Self {
        let all = crds::own().into_iter().chain(crds::borrowed());
        let schemas = all
            .map(|crd| {
                let kind = crd.spec.names.kind.clone();
                let crd = serde_json::to_value(crd).unwrap();
                let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
                (kind, schema["properties"]["spec"].clone())
            })
            .collect();
        Self {
            random: Rng::with_seed(seed),
            material: Material::new(),
            schemas,
            owners,
        }
    }

    /// The private keys in the objects, in the forms in which they could leak.
    pub(super) const fn material(&self) -> &Material {
        &self.material
    }

    /// The next write.
    pub(super) fn next(&mut self) -> Write {
        let object = self.object_of_any_kind();
        match self.random.u8(..) {
            0..24 => Write::Delete(object),
            _ => Write::Apply(object),
        }
    }

    /// An object, in the tenant's namespace.
    fn object_of_any_kind(&mut self) -> Value {
        let mut object = match self.kind() {
            "Secret" => self.secret(),
            "ConfigMap" => json!({"apiVersion": "v1", "kind": "ConfigMap", "data": self.texts()}),
            "ServiceAccount" => json!({"apiVersion": "v1", "kind": "ServiceAccount"}),
            "Service" => self.service(),
            "EndpointSlice" => self.endpoint_slice(),
            "Pod" => pod(),
            "StatefulSet" => self.stateful_set(),
            "PodDisruptionBudget" => json!({
                "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
                "spec": {"maxUnavailable": self.number(), "selector": {"matchLabels": self.labels()}},
            }),
            "Lease" => json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "spec": {"holderIdentity": self.text()},
            }),
            "Event" => json!({
                "apiVersion": "v1", "kind": "Event", "message": self.text(), "reason": "Paused",
                "involvedObject": {"kind": "PgBouncer", "name": self.name(), "namespace": TENANT},
            }),
            custom => self.custom(custom),
        };
        let metadata = self.metadata();
        object["metadata"] = metadata;
        object
    }

    fn kind(&mut self) -> &'static str {
        let sum = KINDS.iter().map(|(_, weight)| weight).sum();
        let mut at = self.random.u32(0..sum);
        for (kind, weight) in KINDS {
            if at < weight {
                return kind;
            }
            at -= weight;
        }
        KINDS[0].0
    }

    // === kinds of our APIs: valid, then changed ===

    fn custom(&mut self, kind: &str) -> Value {
        let mut object = self.valid(kind);
        let known = self.schemas.iter().find(|(known, _)| known == kind);
        let schema = known.unwrap().1.clone();
        for _ in 0..self.random.usize(0..=CHANGES_MAX) {
            self.change(&mut object["spec"], &schema, 0);
        }
        object
    }

    /// Changes one field of `value`, somewhere below it.
    fn change(&mut self, value: &mut Value, schema: &Value, depth: usize) {
        let fields = schema["properties"].as_object();
        let Some(fields) = fields.filter(|fields| !fields.is_empty() && depth < DEPTH_MAX) else {
            *value = self.value("", schema, depth);
            return;
        };
        let at = self.random.usize(0..fields.len());
        let Some((name, schema)) = fields.iter().nth(at) else {
            return;
        };
        if value.get(name).is_some_and(Value::is_object) && self.random.u8(..) < 200 {
            self.change(&mut value[name], schema, depth + 1);
        } else if value.is_object() {
            value[name] = self.value(name, schema, depth + 1);
        }
    }

    /// A value of the type that `schema` asks for.
    fn value(&mut self, name: &str, schema: &Value, depth: usize) -> Value {
        if let Some(choices) = schema["enum"]
            .as_array()
            .filter(|_| self.random.u8(..) < 230)
        {
            return choices[self.random.usize(0..choices.len())].clone();
        }
        match schema["type"].as_str() {
            Some("integer" | "number") => json!(self.number()),
            Some("boolean") => json!(self.random.bool()),
            Some("array") => {
                let size = if self.random.u8(..) < 4 {
                    300
                } else {
                    self.random.usize(0..4)
                };
                let items = (0..size).map(|_| self.value(name, &schema["items"], depth + 1));
                items.collect()
            }
            Some("object") if depth < DEPTH_MAX => self.object(schema, depth),
            Some("object") => json!({}),
            _ if name.ends_with("amespace") => json!(self.namespace()),
            _ if name.ends_with("ame") && self.random.bool() => json!(self.name()),
            _ => json!(self.text()),
        }
    }

    fn object(&mut self, schema: &Value, depth: usize) -> Value {
        let Some(fields) = schema["properties"].as_object() else {
            return self.texts();
        };
        let required: Vec<&str> = schema["required"]
            .as_array()
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let mut made = Map::new();
        for (name, schema) in fields {
            if required.contains(&name.as_str()) || self.random.u8(..) < 50 {
                made.insert(name.clone(), self.value(name, schema, depth + 1));
            }
        }
        Value::Object(made)
    }

    // === kinds of Kubernetes ===

    fn secret(&mut self) -> Value {
        let types = ["kubernetes.io/tls", "Opaque", "kubernetes.io/basic-auth"];
        let mut data = Map::new();
        for key in [
            "tls.crt",
            "tls.key",
            "ca.crt",
            "username",
            "password",
            "pgbouncer.ini",
        ] {
            if self.random.u8(..) < 190 {
                let content = match key {
                    "username" | "password" | "pgbouncer.ini" => self.text(),
                    "tls.key" => self.material.key(&mut self.random),
                    // People swap them.
                    _ if self.random.u8(..) < 12 => self.material.key(&mut self.random),
                    _ => self.material.certificates(&mut self.random),
                };
                data.insert(key.to_owned(), json!(content));
            }
        }
        json!({
            "apiVersion": "v1", "kind": "Secret", "stringData": data,
            "type": types[self.random.usize(0..types.len())],
        })
    }

    fn service(&mut self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "spec": {
                "selector": self.labels(),
                "ports": [{"name": "primary", "port": self.random.u16(1..)}],
            },
        })
    }

    fn endpoint_slice(&mut self) -> Value {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "endpoints": [{
                "addresses": ["127.0.0.1"], "conditions": {"ready": self.random.bool()},
                "targetRef": {"kind": "Pod", "name": self.name(), "namespace": self.namespace()},
            }],
            "ports": [{"name": "primary", "port": self.random.u16(1..), "protocol": "TCP"}],
        })
    }

    fn stateful_set(&mut self) -> Value {
        let labels = json!({"app": self.name()});
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "spec": {
                "serviceName": self.name(), "replicas": 1, "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "pgbouncer", "image": "none.invalid/none"}]},
                },
            },
        })
    }

    // === parts ===

    fn metadata(&mut self) -> Value {
        let mut metadata = json!({"name": self.name(), "namespace": TENANT});
        if self.random.bool() {
            metadata["labels"] = self.labels();
        }
        if self.random.bool() {
            let mut made = Map::new();
            for _ in 0..self.random.usize(1..4) {
                let name = ANNOTATIONS[self.random.usize(0..ANNOTATIONS.len())];
                made.insert(name.to_owned(), json!(self.text()));
            }
            metadata["annotations"] = Value::Object(made);
        }
        if self.random.u8(..) < 60 && !self.owners.is_empty() {
            let (name, uid) = self.owners[self.random.usize(0..self.owners.len())].clone();
            metadata["ownerReferences"] = json!([{
                "apiVersion": "kubedb.com/v1", "kind": "PgBouncer", "name": name, "uid": uid,
                "controller": self.random.bool(),
            }]);
        }
        metadata
    }

    fn labels(&mut self) -> Value {
        let mut labels = json!({
            "app.kubernetes.io/name": "pgbouncers.kubedb.com",
            "app.kubernetes.io/instance": self.name(),
            "app.kubernetes.io/managed-by": "kubedb.com",
        });
        for (label, value) in [
            (annotations::SERVING_LABEL, "true"),
            (annotations::REVISION_LABEL, "true"),
            (annotations::ALIAS_LABEL, "server"),
            (
                annotations::CREATED_BY_LABEL,
                annotations::CREATED_BY_ROTATION,
            ),
        ] {
            if self.random.bool() {
                labels[label] = json!(value);
            }
        }
        labels
    }

    fn texts(&mut self) -> Value {
        let keys = ["plan.json", "journal.json", "key"];
        let made = keys.map(|key| (key.to_owned(), json!(self.text())));
        Value::Object(made.into_iter().collect())
    }

    pub(super) fn name(&mut self) -> String {
        match self.random.u8(..) {
            0..8 => "n".repeat(self.random.usize(40..=253)),
            _ => NAMES[self.random.usize(0..NAMES.len())].to_owned(),
        }
    }

    pub(super) fn namespace(&mut self) -> &'static str {
        let all = [
            TENANT,
            TENANT,
            NEIGHBOUR,
            "bouncert-system",
            "cert-manager",
            "no-such",
        ];
        all[self.random.usize(0..all.len())]
    }

    fn number(&mut self) -> i64 {
        NUMBERS[self.random.usize(0..NUMBERS.len())]
    }

    pub(super) fn text(&mut self) -> String {
        match self.random.u8(..) {
            0..4 => "long ".repeat(self.random.usize(1..TEXT_MAX / 5)),
            4..40 => self.name(),
            40..48 => self.material.certificates(&mut self.random),
            48..64 => {
                let size = self.random.usize(0..24);
                (0..size).map(|_| self.random.char(..)).collect()
            }
            _ => TEXTS[self.random.usize(0..TEXTS.len())].to_owned(),
        }
    }
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "spec": {"containers": [{"name": "pgbouncer", "image": "none.invalid/none"}]},
    })
}
