//! Tokens of ServiceAccounts: `TokenRequest` gives them, `TokenReview` says whose they are.
//!
//! They are JSON Web Tokens with the claims that Kubernetes writes, so that who reads those (Vault, for
//! one) can be tried out here. The key that signs them lives as long as the server: after a restart
//! everybody asks for a new one. At this server they open what Roles say.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::ApiServer;
use super::access::{Identity, User};
use super::call::Call;
use super::error::ApiError;
use super::meta;

use crate::instants::Shift;

/// `iss` of the tokens, and the audience of those that ask for none.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Life of a token that asks for none; Kubernetes' own default.
const LIFETIME_S: i64 = 3600;
/// Kubernetes gives no shorter one, and none beyond 2^32 seconds.
const LIFETIME_MIN_S: i64 = 600;
const LIFETIME_MAX_S: i64 = 1 << 32;

/// Whose token it is, and for which audiences; or why it is nobody's.
type Holder = Result<(Value, Vec<String>), &'static str>;

impl ApiServer {
    /// `POST serviceaccounts/{name}/token`.
    pub(super) fn give_token(&self, call: &Call, request: &Value) -> Result<Value, ApiError> {
        let account = self.object(call)?;
        let spec = &request["spec"];
        if !spec["boundObjectRef"].is_null() {
            return Err(ApiError::BadRequest(
                "spec.boundObjectRef: tokens are not bound to objects here; leave it out"
                    .to_owned(),
            ));
        }
        let lifetime_s = spec["expirationSeconds"].as_i64().unwrap_or(LIFETIME_S);
        if !(LIFETIME_MIN_S..=LIFETIME_MAX_S).contains(&lifetime_s) {
            return Err(ApiError::BadRequest(format!(
                "spec.expirationSeconds: {lifetime_s} is not within {LIFETIME_MIN_S} and {LIFETIME_MAX_S}"
            )));
        }
        let mut audiences = texts(&spec["audiences"]);
        if audiences.is_empty() {
            audiences.push(ISSUER.to_owned());
        }
        let now = self.inner.options.clock.now();
        let expires = now.plus(Duration::seconds(lifetime_s));
        let (namespace, name) = (
            meta::text(&account, "namespace"),
            meta::text(&account, "name"),
        );
        let claims = json!({
            "iss": ISSUER, "aud": audiences,
            "iat": now.unix_timestamp(), "nbf": now.unix_timestamp(),
            "exp": expires.unix_timestamp(),
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
            "kubernetes.io": {
                "namespace": namespace,
                "serviceaccount": { "name": name, "uid": meta::text(&account, "uid") },
            },
        });
        Ok(json!({
            "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
            "metadata": { "namespace": namespace, "name": name },
            "spec": { "audiences": audiences, "expirationSeconds": lifetime_s },
            "status": {
                "token": self.signed(&claims)?,
                "expirationTimestamp": meta::timestamp(expires),
            },
        }))
    }

    /// The status of a `POST tokenreviews`.
    pub(super) fn review_token(&self, spec: &Value) -> Result<Value, ApiError> {
        let token = spec["token"].as_str().unwrap_or_default();
        let mut wanted = texts(&spec["audiences"]);
        if wanted.is_empty() {
            wanted.push(ISSUER.to_owned());
        }
        Ok(match self.read_token(token, &wanted)? {
            Ok((user, audiences)) => {
                json!({ "authenticated": true, "user": user, "audiences": audiences })
            }
            Err(error) => json!({ "authenticated": false, "error": error }),
        })
    }

    /// Who comes with a token; `None` if it is nobody's, or not for us.
    pub(super) fn bearer(&self, token: &str) -> Option<Identity> {
        let (user, _) = self.read_token(token, &[ISSUER.to_owned()]).ok()?.ok()?;
        let name = user["username"].as_str()?.to_owned();
        let groups = texts(&user["groups"]);
        Some(Identity::User(User { name, groups }))
    }

    fn read_token(&self, token: &str, wanted: &[String]) -> Result<Holder, ApiError> {
        let found = self.claims(token)?;
        let now = self.inner.options.clock.now();
        Ok(found
            .ok_or("the token was not signed here")
            .and_then(|claims| self.holder(&claims, wanted, now)))
    }

    /// Whose token it is, and for which of the wanted audiences.
    fn holder(&self, claims: &Value, wanted: &[String], now: OffsetDateTime) -> Holder {
        if claims["exp"].as_i64() <= Some(now.unix_timestamp()) {
            return Err("the token has expired");
        }
        let mut audiences = texts(&claims["aud"]);
        audiences.retain(|audience| wanted.contains(audience));
        if audiences.is_empty() {
            return Err("the token is for another audience");
        }
        let own = &claims["kubernetes.io"];
        let (namespace, account) = (&own["namespace"], &own["serviceaccount"]);
        let (Some(namespace), Some(name)) = (namespace.as_str(), account["name"].as_str()) else {
            return Err("the token names no ServiceAccount");
        };
        let stored = self
            .registry()
            .find("", "v1", "serviceaccounts")
            .and_then(|resource| self.inner.store.get(&resource.key(namespace, name)));
        // One that was made anew under the name is somebody else.
        if stored.is_none_or(|stored| stored["metadata"]["uid"] != account["uid"]) {
            return Err("the token's ServiceAccount is gone");
        }
        let groups = json!([
            "system:serviceaccounts",
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated",
        ]);
        let user = json!({ "username": claims["sub"], "uid": account["uid"], "groups": groups });
        Ok((user, audiences))
    }

    fn signed(&self, claims: &Value) -> Result<String, ApiError> {
        let part = |value: &Value| BASE64URL.encode(value.to_string());
        let header = json!({ "alg": "ES256", "typ": "JWT" });
        let text = format!("{}.{}", part(&header), part(claims));
        let signature = self
            .token_key()?
            .sign(&self.inner.random, text.as_bytes())
            .map_err(|_| no_randomness())?;
        Ok(format!("{text}.{}", BASE64URL.encode(signature)))
    }

    /// The claims of a token, if it was signed here.
    fn claims(&self, token: &str) -> Result<Option<Value>, ApiError> {
        let key = self.token_key()?.public_key();
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key);
        let claims = || {
            let (text, signature) = token.rsplit_once('.')?;
            let signature = BASE64URL.decode(signature).ok()?;
            key.verify(text.as_bytes(), &signature).ok()?;
            let (_, claims) = text.split_once('.')?;
            serde_json::from_slice(&BASE64URL.decode(claims).ok()?).ok()
        };
        Ok(claims())
    }

    fn token_key(&self) -> Result<&EcdsaKeyPair, ApiError> {
        if let Some(key) = self.inner.token_key.get() {
            return Ok(key);
        }
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, &self.inner.random);
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, random)
            .ok()
            .and_then(|key| EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), random).ok())
            .ok_or_else(no_randomness)?;
        Ok(self.inner.token_key.get_or_init(|| key))
    }
}

fn no_randomness() -> ApiError {
    ApiError::Internal("no token: the system gives no random bytes".to_owned())
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::{
        TokenRequest, TokenReview, TokenReviewSpec, TokenReviewStatus,
    };
    use k8s_openapi::api::core::v1::ServiceAccount;
    use kube::Api;
    use kube::api::PostParams;

    use super::*;
    use crate::local::apiserver::Options;
    use crate::local::store::Store;

    async fn accounts() -> Api<ServiceAccount> {
        let server = ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap();
        let accounts: Api<ServiceAccount> = Api::default_namespaced(server.client());
        make(&accounts).await;
        accounts
    }

    async fn make(accounts: &Api<ServiceAccount>) {
        let account = json!({ "metadata": { "name": "purser" } });
        let account = serde_json::from_value(account).unwrap();
        accounts
            .create(&PostParams::default(), &account)
            .await
            .unwrap();
    }

    async fn ask(accounts: &Api<ServiceAccount>, spec: Value) -> kube::Result<TokenRequest> {
        let request = serde_json::from_value(json!({ "metadata": {}, "spec": spec })).unwrap();
        let params = PostParams::default();
        accounts
            .create_token_request("purser", &params, &request)
            .await
    }

    async fn review(
        accounts: &Api<ServiceAccount>,
        token: &str,
        audience: &str,
    ) -> TokenReviewStatus {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: Some(vec![audience.to_owned()]),
            },
            ..TokenReview::default()
        };
        let reviews: Api<TokenReview> = Api::all(accounts.clone().into_client());
        let answer = reviews
            .create(&PostParams::default(), &review)
            .await
            .unwrap();
        answer.status.unwrap()
    }

    #[tokio::test]
    async fn a_token_is_its_accounts_for_its_audience_while_the_account_is_there() {
        let accounts = accounts().await;
        let spec = json!({ "audiences": ["vault"], "expirationSeconds": 600 });
        let given = ask(&accounts, spec).await.unwrap().status.unwrap();
        let token = given.token.unwrap();
        let token = token.as_str();
        let good = review(&accounts, token, "vault").await;
        assert_eq!(good.authenticated, Some(true), "{good:?}");
        let user = good.user.unwrap();
        assert_eq!(
            user.username.as_deref(),
            Some("system:serviceaccount:default:purser")
        );
        let elsewhere = review(&accounts, token, "bank").await;
        assert_eq!(
            elsewhere.error.as_deref(),
            Some("the token is for another audience")
        );
        let forged = format!("{}x{}", &token[..60], &token[61..]);
        let forged = review(&accounts, &forged, "vault").await;
        assert_eq!(
            forged.error.as_deref(),
            Some("the token was not signed here")
        );
        accounts
            .delete("purser", &kube::api::DeleteParams::default())
            .await
            .unwrap();
        make(&accounts).await;
        let gone = review(&accounts, token, "vault").await;
        assert_eq!(
            gone.error.as_deref(),
            Some("the token's ServiceAccount is gone")
        );
    }

    #[tokio::test]
    async fn a_token_that_is_not_to_be_had_says_why() {
        let accounts = accounts().await;
        let error = ask(
            &accounts,
            json!({ "audiences": [], "expirationSeconds": 60 }),
        )
        .await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("60 is not within 600"), "{error}");
    }
}
