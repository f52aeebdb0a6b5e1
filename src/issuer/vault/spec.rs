//! `spec.vault` of an issuer, as cert-manager defines it.

use serde::Deserialize;

/// How to sign through Vault.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VaultSpec {
    /// URL of the server.
    pub(super) server: String,
    /// Path of the role's `sign` endpoint, such as `pki/sign/poolers`.
    pub(super) path: String,
    /// Vault namespace.
    #[serde(default)]
    pub(super) namespace: Option<String>,
    /// PEM of the CAs of the server's certificate, in base64.
    #[serde(default)]
    pub(super) ca_bundle: Option<String>,
    /// A Secret with such PEM.
    #[serde(default)]
    pub(super) ca_bundle_secret_ref: Option<SecretKeyRef>,
    /// How to log in.
    pub(super) auth: VaultAuth,
}

/// How to log in.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VaultAuth {
    /// With a token that is at hand.
    #[serde(default)]
    pub(super) token_secret_ref: Option<SecretKeyRef>,
    /// As an AppRole.
    #[serde(default)]
    pub(super) app_role: Option<AppRole>,
    /// With the token of a ServiceAccount.
    #[serde(default)]
    pub(super) kubernetes: Option<KubernetesAuth>,
}

/// A key of a Secret.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct SecretKeyRef {
    /// Name of the Secret.
    pub(super) name: String,
    /// Its key; each use has its own default.
    #[serde(default)]
    pub(super) key: Option<String>,
}

/// Vault's AppRole method.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AppRole {
    /// Where the method is mounted; `approle` by default.
    #[serde(default)]
    pub(super) path: Option<String>,
    /// Who logs in.
    pub(super) role_id: String,
    /// The secret half.
    pub(super) secret_ref: SecretKeyRef,
}

/// Vault's Kubernetes method.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KubernetesAuth {
    /// Where the method is mounted, `/v1` included; `/v1/auth/kubernetes` by default.
    #[serde(default)]
    pub(super) mount_path: Option<String>,
    /// The role to take.
    pub(super) role: String,
    /// A Secret with a ServiceAccount's token.
    #[serde(default)]
    pub(super) secret_ref: Option<SecretKeyRef>,
    /// A ServiceAccount, for which a short-lived token is asked of the API server.
    #[serde(default)]
    pub(super) service_account_ref: Option<ServiceAccountRef>,
}

/// A ServiceAccount.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ServiceAccountRef {
    /// Its name.
    pub(super) name: String,
    /// Audiences of the token besides the issuer's own.
    #[serde(default)]
    pub(super) audiences: Vec<String>,
}
