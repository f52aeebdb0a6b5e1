//! How the kinds that Kubernetes brings itself merge: the lists that are not one value.
//!
//! A list that is missing here is replaced as a whole, a map that is missing merges field by field.

/// The fields of a type that do not merge in the usual way, or that hold such fields.
#[derive(Debug)]
pub(crate) struct Struct(pub(super) &'static [(&'static str, Field)]);

/// How one field merges.
#[derive(Debug)]
pub(crate) enum Field {
    /// A map with fields of its own.
    Object(&'static Struct),
    /// A list of maps: the keys of server-side apply (none: one value), the merge key of a
    /// strategic merge patch, the items.
    List {
        keys: &'static [&'static str],
        merge: Option<&'static str>,
        item: &'static Struct,
    },
    /// A list of plain values that is a set to both.
    Set,
    /// A map that is one value.
    Atomic,
}

/// The type of a kind; `None` where nothing but the metadata is special.
pub(super) fn find(group: &str, kind: &str) -> Option<&'static Struct> {
    Some(match (group, kind) {
        ("", "Pod") => &POD,
        ("", "Service") => &SERVICE,
        ("", "ServiceAccount") => &SERVICE_ACCOUNT,
        ("", "Node") => &NODE,
        ("", "Namespace") | ("policy", "PodDisruptionBudget") => &WITH_CONDITIONS,
        ("apps", "StatefulSet" | "Deployment") => &STATEFUL_SET,
        _ => return None,
    })
}

const fn list(
    keys: &'static [&'static str],
    merge: Option<&'static str>,
    item: &'static Struct,
) -> Field {
    Field::List { keys, merge, item }
}

/// A list of maps told apart by one field, to server-side apply and to strategic merge patch.
macro_rules! by {
    ($key:literal, $item:expr) => {
        list(&[$key], Some($key), $item)
    };
}

pub(super) static OBJECT_META: Struct = Struct(&[
    ("finalizers", Field::Set),
    ("ownerReferences", by!("uid", &PLAIN_ITEM)),
]);

static PLAIN_ITEM: Struct = Struct(&[]);

/// An object of which only the metadata is known.
pub(super) static ANY_OBJECT: Struct = Struct(&[("metadata", Field::Object(&OBJECT_META))]);

static CONDITIONS: Struct = Struct(&[("conditions", by!("type", &PLAIN_ITEM))]);

static WITH_CONDITIONS: Struct = Struct(&[
    ("metadata", Field::Object(&OBJECT_META)),
    ("spec", Field::Object(&SELECTING)),
    ("status", Field::Object(&CONDITIONS)),
]);

static SELECTING: Struct = Struct(&[("selector", Field::Atomic)]);

static POD: Struct = Struct(&[
    ("metadata", Field::Object(&OBJECT_META)),
    ("spec", Field::Object(&POD_SPEC)),
    ("status", Field::Object(&POD_STATUS)),
]);

static POD_TEMPLATE: Struct = Struct(&[
    ("metadata", Field::Object(&OBJECT_META)),
    ("spec", Field::Object(&POD_SPEC)),
]);

static POD_SPEC: Struct = Struct(&[
    ("containers", by!("name", &CONTAINER)),
    ("initContainers", by!("name", &CONTAINER)),
    ("ephemeralContainers", by!("name", &CONTAINER)),
    ("volumes", by!("name", &PLAIN_ITEM)),
    ("imagePullSecrets", by!("name", &PLAIN_ITEM)),
    ("hostAliases", by!("ip", &PLAIN_ITEM)),
    ("resourceClaims", by!("name", &PLAIN_ITEM)),
    ("schedulingGates", by!("name", &PLAIN_ITEM)),
    ("nodeSelector", Field::Atomic),
    (
        "topologySpreadConstraints",
        list(
            &["topologyKey", "whenUnsatisfiable"],
            Some("topologyKey"),
            &PLAIN_ITEM,
        ),
    ),
]);

static CONTAINER: Struct = Struct(&[
    ("env", by!("name", &PLAIN_ITEM)),
    (
        "ports",
        list(
            &["containerPort", "protocol"],
            Some("containerPort"),
            &PLAIN_ITEM,
        ),
    ),
    ("volumeMounts", by!("mountPath", &PLAIN_ITEM)),
    ("volumeDevices", by!("devicePath", &PLAIN_ITEM)),
]);

static POD_STATUS: Struct = Struct(&[
    ("conditions", by!("type", &PLAIN_ITEM)),
    ("podIPs", by!("ip", &PLAIN_ITEM)),
    ("hostIPs", list(&[], Some("ip"), &PLAIN_ITEM)),
]);

static SERVICE: Struct = Struct(&[
    ("metadata", Field::Object(&OBJECT_META)),
    ("spec", Field::Object(&SERVICE_SPEC)),
    ("status", Field::Object(&CONDITIONS)),
]);

static SERVICE_SPEC: Struct = Struct(&[
    (
        "ports",
        list(&["port", "protocol"], Some("port"), &PLAIN_ITEM),
    ),
    ("selector", Field::Atomic),
]);

static SERVICE_ACCOUNT: Struct = Struct(&[
    ("metadata", Field::Object(&OBJECT_META)),
    ("secrets", by!("name", &PLAIN_ITEM)),
]);

static NODE: Struct = Struct(&[
    ("metadata", Field::Object(&OBJECT_META)),
    ("spec", Field::Object(&NODE_SPEC)),
    ("status", Field::Object(&NODE_STATUS)),
]);

static NODE_SPEC: Struct = Struct(&[("podCIDRs", Field::Set)]);

static NODE_STATUS: Struct = Struct(&[
    ("conditions", by!("type", &PLAIN_ITEM)),
    ("addresses", by!("type", &PLAIN_ITEM)),
]);

static STATEFUL_SET: Struct = Struct(&[
    ("metadata", Field::Object(&OBJECT_META)),
    ("spec", Field::Object(&STATEFUL_SET_SPEC)),
    ("status", Field::Object(&CONDITIONS)),
]);

static STATEFUL_SET_SPEC: Struct = Struct(&[
    ("selector", Field::Atomic),
    ("template", Field::Object(&POD_TEMPLATE)),
]);
