//! Signs through HashiCorp Vault: log in, post the request to a role's `sign` endpoint, put the
//! answer in order.
//!
//! What Vault's answers mean: 400 from `sign` is the role's refusal (`Denied`); 503 is a Vault that is
//! sealed or not ready (`Pending`); 403 and 404 wait for somebody to change the policy, the token or
//! the path; 429, other 5xx and a broken connection pass (`Failed`, to be tried again).
//!
//! An Issuer is a tenant's, and so may its server be. What it gets, and what is told of it, is bounded:
//! addresses ([`VaultNetworks`]), audiences of tokens, one text for all that is not Vault's answer, and
//! a length for what is.

mod error;
mod http;
mod networks;
mod spec;

use ::http::StatusCode;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use time::OffsetDateTime;

pub use self::error::VaultError;
use self::http::Server;
pub use self::networks::{Network, NotANetwork, VaultNetworks};
use self::spec::{KubernetesAuth, SecretKeyRef, ServiceAccountRef, VaultSpec};
use super::{Issuance, IssuerError, IssuerName, Outcome, SigningRequest, clamped};
use crate::cluster::{Cluster, ClusterError};
use crate::names::ObjectRef;
use crate::opaque;
use crate::pki::answer::{self, Answer};
use crate::pki::bundle::TrustBundle;
use crate::pki::csr;
use crate::pki::profile::LeafProfile;
use crate::printable::printable;
use crate::redacted::Redacted;

/// Key of a Secret with a token, where none is named; as in cert-manager.
const TOKEN_KEY: &str = "token";
/// Life of the ServiceAccount token that we ask for: the shortest that Kubernetes gives.
const SERVICE_ACCOUNT_TOKEN_S: i64 = 600;

/// Longest text of Vault's that is passed on.
const WORDS_MAX: usize = 512;
/// Beginnings of audiences that API servers have, whatever this one says.
const API_AUDIENCES: [&str; 2] = ["https://kubernetes.default", "kubernetes.default"];

/// A Vault that an issuer names.
pub(super) struct Vault<'a> {
    cluster: &'a Cluster,
    issuer: &'a IssuerName,
    secret_namespace: &'a str,
    networks: &'a VaultNetworks,
    spec: VaultSpec,
}

impl<'a> Vault<'a> {
    /// The Vault of `spec.vault`, whose Secrets are in `secret_namespace`, and whose address has to be in
    /// `networks`.
    pub(super) fn new(
        cluster: &'a Cluster,
        issuer: &'a IssuerName,
        (secret_namespace, networks): (&'a str, &'a VaultNetworks),
        spec: Value,
    ) -> Result<Self, IssuerError> {
        match serde_json::from_value(spec) {
            Ok(spec) => Ok(Self {
                cluster,
                issuer,
                secret_namespace,
                networks,
                spec,
            }),
            Err(error) => Err(IssuerError::Vault {
                issuer: issuer.clone(),
                source: Box::new(VaultError::Spec {
                    detail: opaque::shape(&error),
                }),
            }),
        }
    }

    /// Has a certificate signed.
    pub(super) async fn sign(&self, request: &SigningRequest<'_>, now: OffsetDateTime) -> Outcome {
        let csr = match csr::request(request.profile, request.key) {
            Ok(csr) => csr,
            Err(source) => {
                return Outcome::Failed(IssuerError::Request {
                    issuer: self.issuer.clone(),
                    source: Box::new(source),
                });
            }
        };
        match self.ask(request.profile, &csr).await {
            Ok(data) => match answer_of(&data) {
                Ok(answer) => Outcome::Issued(Box::new(issuance(answer, request.profile, now))),
                Err(source) => {
                    Outcome::Failed(IssuerError::answer(self.issuer, source, ROOT_REMEDY))
                }
            },
            Err(error @ VaultError::Sealed { .. }) => Outcome::Pending {
                on: format!("{}: {error}", self.issuer),
            },
            Err(VaultError::Refused {
                what: SIGN,
                status: StatusCode::BAD_REQUEST,
                message,
            }) => Outcome::Denied {
                reason: format!(
                    "{}: Vault's {} refuses: {message}",
                    self.issuer, self.spec.path
                ),
            },
            Err(source) => Outcome::Failed(IssuerError::Vault {
                issuer: self.issuer.clone(),
                source: Box::new(source),
            }),
        }
    }

    /// The `data` of Vault's answer.
    async fn ask(&self, profile: &LeafProfile, csr: &str) -> Result<Value, VaultError> {
        let roots = self.roots().await?;
        // Before anything that is secret is asked for.
        let server = Server::find(&self.spec.server, roots.as_ref(), self.networks).await?;
        let token = self.token(&server).await?;
        let headers = [("x-vault-token", &token)];
        let body = body(profile, csr);
        let path = format!("v1/{}", self.spec.path.trim_matches('/'));
        let mut answer = self.post(&server, SIGN, (&path, &headers, &body)).await?;
        match answer.get_mut("data").map(Value::take) {
            Some(data) if data["certificate"].is_string() => Ok(data),
            _ => Err(server.not_vault("data.certificate")),
        }
    }

    async fn roots(&self) -> Result<Option<TrustBundle>, VaultError> {
        let text = if let Some(bundle) = &self.spec.ca_bundle {
            base64::Engine::decode(&base64::engine::general_purpose::STANDARD, bundle)
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .ok_or_else(|| VaultError::Spec {
                    detail: "caBundle is not base64 of PEM".to_owned(),
                })?
        } else if let Some(reference) = &self.spec.ca_bundle_secret_ref {
            let field = "spec.vault.caBundleSecretRef";
            let bundle = self.secret(reference, "ca.crt", field).await?;
            bundle.expose().clone()
        } else {
            return Ok(None);
        };
        let bundle = TrustBundle::from_pem(&text).map_err(VaultError::CaBundle)?;
        Ok(Some(bundle))
    }

    /// A Vault token, fresh where the method makes one: none is kept, so none is kept too long.
    async fn token(&self, server: &Server) -> Result<Redacted<String>, VaultError> {
        let auth = &self.spec.auth;
        if let Some(reference) = &auth.token_secret_ref {
            let field = "spec.vault.auth.tokenSecretRef";
            return self.secret(reference, TOKEN_KEY, field).await;
        }
        if let Some(role) = &auth.app_role {
            let field = "spec.vault.auth.appRole.secretRef";
            let secret = self.secret(&role.secret_ref, "secretId", field).await?;
            let mount = role.path.as_deref().unwrap_or("approle").trim_matches('/');
            let path = format!("v1/auth/{mount}/login");
            let body = json!({"role_id": role.role_id, "secret_id": secret.expose()});
            return self.log_in(server, &path, &body).await;
        }
        let Some(kubernetes) = &auth.kubernetes else {
            return Err(VaultError::NoLogin);
        };
        let jwt = self.service_account_token(kubernetes).await?;
        let mount = kubernetes.mount_path.as_deref();
        let mount = mount.unwrap_or("/v1/auth/kubernetes").trim_matches('/');
        let body = json!({"role": kubernetes.role, "jwt": jwt.expose()});
        self.log_in(server, &format!("{mount}/login"), &body).await
    }

    async fn service_account_token(
        &self,
        auth: &KubernetesAuth,
    ) -> Result<Redacted<String>, VaultError> {
        if let Some(reference) = &auth.secret_ref {
            let field = "spec.vault.auth.kubernetes.secretRef";
            return self.secret(reference, TOKEN_KEY, field).await;
        }
        let account = auth
            .service_account_ref
            .as_ref()
            .ok_or(VaultError::NoLogin)?;
        let at = ObjectRef::new(self.secret_namespace, &account.name);
        let audiences = self.audiences(&at, account).await?;
        let asking = self
            .cluster
            .service_account_token(&at, audiences, SERVICE_ACCOUNT_TOKEN_S);
        let token = asking.await.map_err(|error| forbidden(error, &at))?;
        token.ok_or(VaultError::NoToken { account: at })
    }

    /// The audiences of a token for this Vault: the issuer's own, as cert-manager asks for, so that its
    /// Vault roles fit, and those of the spec. The server may be a tenant's, so none of them is the API
    /// server's: it could come back with the token.
    async fn audiences(
        &self,
        at: &ObjectRef,
        account: &ServiceAccountRef,
    ) -> Result<Vec<String>, VaultError> {
        let own = if self.issuer.namespace.is_empty() {
            format!("vault://{}", self.issuer.name)
        } else {
            format!("vault://{}/{}", self.issuer.namespace, self.issuer.name)
        };
        let refused = |audience: &str, why| VaultError::Audience {
            audience: audience.to_owned(),
            why,
            own: own.clone(),
        };
        if account.audiences.is_empty() {
            return Ok(vec![own]);
        }
        for audience in &account.audiences {
            if audience.trim().is_empty() {
                return Err(refused(audience, "is empty"));
            }
            if is_well_known(audience) {
                return Err(refused(audience, "is an audience of API servers"));
            }
        }
        let asking = self.cluster.api_audiences(at, SERVICE_ACCOUNT_TOKEN_S);
        let of_api = asking.await.map_err(|error| forbidden(error, at))?;
        let Some(of_api) = of_api else {
            return Err(VaultError::NoToken {
                account: at.clone(),
            });
        };
        for audience in &account.audiences {
            // One that does not say its audiences could have any.
            if of_api.is_empty() || of_api.iter().any(|known| same(known, audience)) {
                return Err(refused(audience, "is an audience of this API server"));
            }
        }
        let mut audiences = vec![own];
        audiences.extend(account.audiences.iter().cloned());
        Ok(audiences)
    }

    async fn log_in(
        &self,
        server: &Server,
        path: &str,
        body: &Value,
    ) -> Result<Redacted<String>, VaultError> {
        let mut answer = self.post(server, LOG_IN, (path, &[], body)).await?;
        if let Value::String(token) = answer["auth"]["client_token"].take() {
            return Ok(Redacted::new(token));
        }
        Err(server.not_vault("auth.client_token"))
    }

    async fn post(
        &self,
        server: &Server,
        what: &'static str,
        (path, headers, body): (&str, &[(&'static str, &Redacted<String>)], &Value),
    ) -> Result<Value, VaultError> {
        check_path(path)?;
        let namespace = self.spec.namespace.clone().map(Redacted::new);
        let mut headers = headers.to_vec();
        headers.extend(namespace.as_ref().map(|name| ("x-vault-namespace", name)));
        let asking = server.post(path, &headers, body);
        let (status, answer) = self.cluster.fence().pass(asking).await??;
        if status.is_success() {
            return Ok(answer);
        }
        let message = words(&answer);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let server = self.spec.server.clone();
            return Err(VaultError::Sealed { server, message });
        }
        Err(VaultError::Refused {
            what,
            status,
            message,
        })
    }

    async fn secret(
        &self,
        reference: &SecretKeyRef,
        default_key: &str,
        field: &'static str,
    ) -> Result<Redacted<String>, VaultError> {
        let at = ObjectRef::new(self.secret_namespace, &reference.name);
        let key = reference.key.as_deref().filter(|key| !key.is_empty());
        let key = key.unwrap_or(default_key);
        let found = self.cluster.get::<Secret>(&at).await?;
        let text = found
            .and_then(|secret| secret.data?.remove(key))
            .and_then(|bytes| String::from_utf8(bytes.0).ok())
            // Whoever wrote it with an editor left a line feed.
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty());
        text.map(Redacted::new).ok_or_else(|| VaultError::NoSecret {
            secret: at,
            key: key.to_owned(),
            field,
        })
    }
}

/// What to change where Vault's answer lacks the root.
const ROOT_REMEDY: &str = "import the root into Vault's mount together with the issuing CA \
                           (issuers/import/bundle), or name it in the issuer's manual_chain";

/// What is asked of Vault, for its refusals.
const SIGN: &str = "sign";
const LOG_IN: &str = "the login";

/// What `sign` takes; what the role does not read from here, it reads from the request.
fn body(profile: &LeafProfile, csr: &str) -> Value {
    let alternatives: Vec<&str> = profile
        .dns_names
        .iter()
        .chain(&profile.email_addresses)
        .map(String::as_str)
        .collect();
    let addresses: Vec<String> = profile
        .ip_addresses
        .iter()
        .map(ToString::to_string)
        .collect();
    json!({
        "csr": csr,
        "common_name": profile.common_name.clone().unwrap_or_default(),
        "alt_names": alternatives.join(","),
        "ip_sans": addresses.join(","),
        "uri_sans": profile.uris.join(","),
        "ttl": format!("{}s", profile.lifetime.whole_seconds()),
        "exclude_cn_from_sans": true,
    })
}

fn answer_of(data: &Value) -> Result<Answer, answer::AnswerError> {
    // `issue` makes a key of its own, and sends it.
    if data["private_key"]
        .as_str()
        .is_some_and(|key| !key.is_empty())
    {
        return Err(answer::AnswerError::PrivateKey);
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut authorities = vec![text(&data["issuing_ca"])];
    let chain = data["ca_chain"].as_array();
    authorities.extend(chain.into_iter().flatten().map(text));
    let authorities: Vec<&str> = authorities.iter().map(String::as_str).collect();
    answer::assemble(&text(&data["certificate"]), &authorities)
}

fn issuance(answer: Answer, profile: &LeafProfile, now: OffsetDateTime) -> Issuance {
    Issuance {
        clamped: clamped(&answer.chain, profile, now),
        chain: answer.chain,
        anchors: answer.anchors,
        signer: answer.signer,
    }
}

/// Refuses a path that leads past Vault's API, or that a server could read otherwise than it is written.
fn check_path(path: &str) -> Result<(), VaultError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.~/".contains(c);
    let is_segment = |part: &str| !matches!(part, "" | "." | "..");
    if path.starts_with("v1/") && path.chars().all(is_plain) && path.split('/').all(is_segment) {
        return Ok(());
    }
    Err(VaultError::Spec {
        detail: "spec.vault.path, auth.appRole.path and auth.kubernetes.mountPath are paths below v1, of \
                 letters, digits, -, _, . and ~ between slashes"
            .to_owned(),
    })
}

/// Whether any API server, by its defaults, has that audience.
fn is_well_known(audience: &str) -> bool {
    let audience = audience.trim().to_ascii_lowercase();
    if ["api", "kubernetes/serviceaccount"].contains(&audience.as_str()) {
        return true;
    }
    API_AUDIENCES
        .iter()
        .any(|known| match audience.strip_prefix(known) {
            Some(rest) => {
                !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '-')
            }
            None => false,
        })
}

/// Whether two audiences are the same but for case, white space and a slash at the end.
fn same(known: &str, audience: &str) -> bool {
    let plain = |text: &str| text.trim().trim_end_matches('/').to_ascii_lowercase();
    plain(known) == plain(audience)
}

/// A refusal of the API server to give a token, as what to do about it.
fn forbidden(error: ClusterError, account: &ObjectRef) -> VaultError {
    if error.code() != Some(403) {
        return error.into();
    }
    VaultError::TokenForbidden {
        account: account.clone(),
        message: printable(&error.server_message().unwrap_or_default(), WORDS_MAX),
    }
}

/// Vault's `errors`, on one line.
fn words(answer: &Value) -> String {
    let errors = answer["errors"].as_array();
    let errors: Vec<&str> = errors
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if errors.is_empty() {
        return "no reason given".to_owned();
    }
    // Vault may repeat the token, or whatever else it was sent or holds.
    printable(&opaque::words(&errors.join("; ")), WORDS_MAX)
}
