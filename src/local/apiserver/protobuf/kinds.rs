//! The messages that can be read, with the field numbers of Kubernetes' API.

use super::Message;
use super::Type::{Boolean, BytesMap, IntOrString, Integer, Many, One, Text, TextMap, Texts};

/// The message of a kind.
pub(super) fn find(api_version: &str, kind: &str) -> Option<&'static Message> {
    Some(match (api_version, kind) {
        ("v1", "Namespace") => &NAMESPACE,
        ("v1", "Secret") => &SECRET,
        ("v1", "ConfigMap") => &CONFIG_MAP,
        ("v1", "ServiceAccount") => &SERVICE_ACCOUNT,
        ("policy/v1", "PodDisruptionBudget") => &DISRUPTION_BUDGET,
        ("policy/v1", "Eviction") => &EVICTION,
        ("authentication.k8s.io/v1", "TokenRequest") => &TOKEN_REQUEST,
        ("authentication.k8s.io/v1", "SelfSubjectReview") => &SELF_REVIEW,
        ("authorization.k8s.io/v1", "SelfSubjectAccessReview") => &ACCESS_REVIEW,
        ("authorization.k8s.io/v1", "SelfSubjectRulesReview") => &RULES_REVIEW,
        (_, "DeleteOptions") => &DELETE_OPTIONS,
        _ => return None,
    })
}

// Times, generation and managedFields are left out: a client does not set them.
static OBJECT_META: Message = Message(&[
    (1, "name", Text),
    (2, "generateName", Text),
    (3, "namespace", Text),
    (5, "uid", Text),
    (6, "resourceVersion", Text),
    (11, "labels", TextMap),
    (12, "annotations", TextMap),
    (13, "ownerReferences", Many(&OWNER_REFERENCE)),
    (14, "finalizers", Texts),
]);

static OWNER_REFERENCE: Message = Message(&[
    (1, "kind", Text),
    (3, "name", Text),
    (4, "uid", Text),
    (5, "apiVersion", Text),
    (6, "controller", Boolean),
    (7, "blockOwnerDeletion", Boolean),
]);

static NAMESPACE: Message = Message(&[(1, "metadata", One(&OBJECT_META))]);

static SECRET: Message = Message(&[
    (1, "metadata", One(&OBJECT_META)),
    (2, "data", BytesMap),
    (3, "type", Text),
    (4, "stringData", TextMap),
    (5, "immutable", Boolean),
]);

static CONFIG_MAP: Message = Message(&[
    (1, "metadata", One(&OBJECT_META)),
    (2, "data", TextMap),
    (3, "binaryData", BytesMap),
    (4, "immutable", Boolean),
]);

static SERVICE_ACCOUNT: Message = Message(&[
    (1, "metadata", One(&OBJECT_META)),
    (2, "secrets", Many(&OBJECT_REFERENCE)),
    (3, "imagePullSecrets", Many(&NAME_REFERENCE)),
    (4, "automountServiceAccountToken", Boolean),
]);

static OBJECT_REFERENCE: Message =
    Message(&[(1, "kind", Text), (2, "namespace", Text), (3, "name", Text)]);

static NAME_REFERENCE: Message = Message(&[(1, "name", Text)]);

static DISRUPTION_BUDGET: Message = Message(&[
    (1, "metadata", One(&OBJECT_META)),
    (2, "spec", One(&DISRUPTION_BUDGET_SPEC)),
]);

static DISRUPTION_BUDGET_SPEC: Message = Message(&[
    (1, "minAvailable", IntOrString),
    (2, "selector", One(&LABEL_SELECTOR)),
    (3, "maxUnavailable", IntOrString),
    (4, "unhealthyPodEvictionPolicy", Text),
]);

static LABEL_SELECTOR: Message = Message(&[
    (1, "matchLabels", TextMap),
    (2, "matchExpressions", Many(&REQUIREMENT)),
]);

static REQUIREMENT: Message = Message(&[
    (1, "key", Text),
    (2, "operator", Text),
    (3, "values", Texts),
]);

static EVICTION: Message = Message(&[
    (1, "metadata", One(&OBJECT_META)),
    (2, "deleteOptions", One(&DELETE_OPTIONS)),
]);

static TOKEN_REQUEST: Message = Message(&[
    (1, "metadata", One(&OBJECT_META)),
    (2, "spec", One(&TOKEN_REQUEST_SPEC)),
]);

static TOKEN_REQUEST_SPEC: Message =
    Message(&[(1, "audiences", Texts), (4, "expirationSeconds", Integer)]);

static SELF_REVIEW: Message = Message(&[(1, "metadata", One(&OBJECT_META))]);

static ACCESS_REVIEW: Message = Message(&[
    (1, "metadata", One(&OBJECT_META)),
    (2, "spec", One(&ACCESS_REVIEW_SPEC)),
]);

static ACCESS_REVIEW_SPEC: Message = Message(&[
    (1, "resourceAttributes", One(&RESOURCE_ATTRIBUTES)),
    (2, "nonResourceAttributes", One(&NON_RESOURCE_ATTRIBUTES)),
]);

static RESOURCE_ATTRIBUTES: Message = Message(&[
    (1, "namespace", Text),
    (2, "verb", Text),
    (3, "group", Text),
    (4, "version", Text),
    (5, "resource", Text),
    (6, "subresource", Text),
    (7, "name", Text),
]);

static NON_RESOURCE_ATTRIBUTES: Message = Message(&[(1, "path", Text), (2, "verb", Text)]);

static RULES_REVIEW: Message = Message(&[
    (1, "metadata", One(&OBJECT_META)),
    (2, "spec", One(&RULES_REVIEW_SPEC)),
]);

static RULES_REVIEW_SPEC: Message = Message(&[(1, "namespace", Text)]);

static DELETE_OPTIONS: Message = Message(&[
    (1, "gracePeriodSeconds", Integer),
    (2, "preconditions", One(&PRECONDITIONS)),
    (3, "orphanDependents", Boolean),
    (4, "propagationPolicy", Text),
    (5, "dryRun", Texts),
]);

static PRECONDITIONS: Message = Message(&[(1, "uid", Text), (2, "resourceVersion", Text)]);
