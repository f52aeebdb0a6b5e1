//! Short-lived tokens of a ServiceAccount.

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;

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
            Ok(answer) => {
                let token = answer.status.and_then(|status| status.token);
                Ok(token.map(Redacted::new))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
