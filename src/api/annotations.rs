//! Names of the annotations, labels and finalizers that Bouncert writes or obeys.

use kube::ResourceExt;

/// Finalizer on a `PgBouncer`: KubeDB's.
pub const FINALIZER: &str = "kubedb.com";
/// Finalizer on a request that has begun to change something: deleting it undoes it first.
pub const REQUEST_FINALIZER: &str = "bouncert.dev/undo";
/// Pod label that the primary Service selects; draining a pod takes it off.
pub const SERVING_LABEL: &str = "bouncert.dev/serving";
/// Pod-template annotation: digest of the configuration and material a pod was started with.
pub const DIGEST: &str = "bouncert.dev/digest";
/// On a pod: the digest that its pooler was seen to have loaded, and the container that was seen, as
/// `<digest>@<container>`. A reload moves a pod on without a new start.
pub const LOADED: &str = "bouncert.dev/loaded";
/// On a pod: when its files were last asked for. A kubelet that sees a pod change brings its volumes
/// into step at once, and takes a minute otherwise.
pub const FILES_ASKED_AT: &str = "bouncert.dev/files-asked-at";
/// On a PgBouncer: a number for all that it is made from and into, as the daemon that last found it settled
/// left it for the next one. Taking it off costs one look.
pub const SETTLED: &str = "bouncert.dev/settled";
/// On a PgBouncer: which daemon looks after it and its requests (`--class`); without it the daemon
/// that has no class does.
pub const CLASS: &str = "bouncert.dev/class";
/// On an object that Bouncert did not make: the name of the PgBouncer that it is handed over to. The
/// daemon then becomes its controller, unless it has one.
pub const ADOPT: &str = "bouncert.dev/adopt";
/// On a PgBouncer or a request: how changes reach the pods: `RollingRestart`, `Reload` or `Auto`.
pub const STRATEGY: &str = "bouncert.dev/strategy";
/// On a PgBouncer or a request: how long a drain waits for clients to leave (a Go duration).
pub const DRAIN_TIMEOUT: &str = "bouncert.dev/drain-timeout";
/// On a PgBouncer or a request: how many pods may be out of service at the same time during a rolling
/// restart: a number (default 1), or a percentage of the replicas, rounded up. Never more than the
/// PodDisruptionBudget of the PgBouncer allows, and never all.
pub const MAX_UNAVAILABLE: &str = "bouncert.dev/max-unavailable";
/// On a PgBouncer or a request: key algorithm of new keys: `ECDSA-P256` (default), `ECDSA-P384`,
/// `Ed25519`, `RSA-2048`, `RSA-3072`, `RSA-4096`.
pub const KEY_ALGORITHM: &str = "bouncert.dev/key-algorithm";
/// On a PgBouncer: whether a rotation makes a new key: `Always` (default) or `Never`.
pub const ROTATION_POLICY: &str = "bouncert.dev/rotation-policy";
/// On a PgBouncer: what happens to a certificate that would outlive its CA: `Refuse` (default) or
/// `Clamp`, which ends it with its CA and says so in an event.
pub const OUTLIVING: &str = "bouncert.dev/outliving";
/// On a PgBouncer: the `sslmode` towards PostgreSQL (`disable` to `verify-full`), where its AppBinding
/// says none.
pub const BACKEND_SSLMODE: &str = "bouncert.dev/backend-sslmode";
/// On material Secrets: `true` where the leaf ends earlier than asked for, because its CA does.
pub const CLAMPED: &str = "bouncert.dev/clamped";
/// On published material: when it was issued, as RFC 3339. Renewal counts from then, because issuers
/// date the beginning of a certificate back.
pub const ISSUED: &str = "bouncert.dev/issued";
/// On material Secrets: the revision they hold.
pub const REVISION: &str = "bouncert.dev/revision";
/// On material Secrets: SHA-256 of the leaf.
pub const FINGERPRINT: &str = "bouncert.dev/fingerprint";
/// On published material: how long each anchor of `ca.crt` is needed, as
/// `<sha256>=<RFC 3339>` separated by commas (invariant I6).
pub const TRUST_UNTIL: &str = "bouncert.dev/trust-until";
/// Label on all Secrets that hold a revision of material: the alias.
pub const ALIAS_LABEL: &str = "bouncert.dev/alias";
/// On a PgBouncer or a Namespace: when rotations may begin by themselves, such as
/// `Mon-Fri 01:00-05:00 Europe/Berlin` or `cron 0 2 * * SAT for 4h`; the PgBouncer's is stronger.
pub const MAINTENANCE_WINDOW: &str = "bouncert.dev/maintenance-window";
/// On a PgBouncer or a Namespace: `true`, a day, or an RFC 3339 instant: no rotation begins by itself,
/// or none before then. While it cannot be read, none begins.
pub const FREEZE_ROTATION: &str = "bouncert.dev/freeze-rotation";
/// On an AppBinding, or on a Namespace for all AppBindings in it: the namespaces whose PgBouncers may
/// refer to it, separated by commas, or `*`.
pub const ALLOWED_NAMESPACES: &str = "bouncert.dev/allowed-namespaces";
/// Label on requests that somebody else than a person made: who.
pub const CREATED_BY_LABEL: &str = "bouncert.dev/created-by";
/// Value of [`CREATED_BY_LABEL`] on requests of the scheduled rotation.
pub const CREATED_BY_ROTATION: &str = "rotation";
/// On such a request: why it was made.
pub const CAUSE: &str = "bouncert.dev/cause";
/// On such a request: how many in a row it is, the first being 1.
pub const ATTEMPT: &str = "bouncert.dev/attempt";
/// Label on a Secret that is a revision and not a contract Secret: `true`.
pub const REVISION_LABEL: &str = "bouncert.dev/is-revision";
/// On a journal ConfigMap: name of its request, as a label (cut to what a label can hold) and as an
/// annotation.
pub const REQUEST_LABEL: &str = "bouncert.dev/request";
/// Label on a journal ConfigMap: namespace of its request.
pub const REQUEST_NAMESPACE_LABEL: &str = "bouncert.dev/request-namespace";
/// On revision Secrets and on keys that wait for an answer: proof that the daemon made them (`seal`).
pub const SEAL: &str = "bouncert.dev/seal";
/// Annotation on the Auth Secret: since when it is in use.
pub const AUTH_ACTIVE_FROM: &str = "kubedb.com/auth-active-from";
/// KubeDB's pod label, without a prefix, for the `resourceVersion` of the backend Secret.
pub const BACKEND_SECRET_VERSION_LABEL: &str = "backend-secret-resource-version";

/// The class of an object; empty if it has none.
pub fn class_of<K: ResourceExt>(object: &K) -> &str {
    object.annotations().get(CLASS).map_or("", String::as_str)
}
