//! Short-lived tokens of a ServiceAccount.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use serde_json::Value;

use super::{Cluster, ClusterError};
use crate::names::ObjectRef;
use crate::redacted::Redacted;

impl Cluster {
    /// Asks for a token of a ServiceAccount; `None` if the API server has none to give.
    pub async fn service_account_token(
        &self,
        at: &ObjectRef,
        audiences: Vec<String>,
        lifetime_s: i64,
    ) -> Result<Option<Redacted<String>>, ClusterError> {
        let answer = self.request_token(at, audiences, lifetime_s).await?;
        let token = answer.and_then(|answer| answer.status?.token);
        Ok(token.map(Redacted::new))
    }

    /// The audiences of the API server itself, which a token has for which none are asked: the answer
    /// says so, and so does the token, which goes nowhere. `None` if there is no such ServiceAccount.
    pub async fn api_audiences(
        &self,
        at: &ObjectRef,
        lifetime_s: i64,
    ) -> Result<Option<BTreeSet<String>>, ClusterError> {
        let Some(answer) = self.request_token(at, Vec::new(), lifetime_s).await? else {
            return Ok(None);
        };
        let said = answer.spec.and_then(|spec| spec.audiences);
        let mut audiences: BTreeSet<String> = said.into_iter().flatten().collect();
        if let Some(token) = answer.status.and_then(|status| status.token) {
            audiences.extend(claimed(&Redacted::new(token)));
        }
        Ok(Some(audiences))
    }

    async fn request_token(
        &self,
        at: &ObjectRef,
        audiences: Vec<String>,
        lifetime_s: i64,
    ) -> Result<Option<TokenRequest>, ClusterError> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client().clone(), &at.namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(audiences),
                expiration_seconds: Some(lifetime_s),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let params = PostParams::default();
        let call = api.create_token_request(&at.name, &params, &request);
        match self
            .write::<ServiceAccount, _>("get a token of", at, call)
            .await
        {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Audiences and issuer that a JSON Web Token claims; none where it cannot be read.
fn claimed(token: &Redacted<String>) -> Vec<String> {
    let claims = || {
        let part = token.expose().split('.').nth(1)?;
        serde_json::from_slice::<Value>(&BASE64URL.decode(part).ok()?).ok()
    };
    let claims = claims().unwrap_or_default();
    let audiences = match &claims["aud"] {
        Value::Array(all) => all.clone(),
        one => vec![one.clone()],
    };
    let all = audiences.iter().chain([&claims["iss"]]);
    all.filter_map(Value::as_str).map(str::to_owned).collect()
}
