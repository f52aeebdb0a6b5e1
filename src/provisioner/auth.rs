//! The auth Secret: made once, never changed by us afterwards
//! (docs/kubedb-compatibility.md, "Auth Secret").

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;
use time::OffsetDateTime;

use super::Provisioner;
use super::blocked::Blocked;
use super::validate::{auth_secret, compare_and_swap};
use crate::api::PgBouncer;
use crate::api::annotations::AUTH_ACTIVE_FROM;
use crate::api::common::rfc3339_seconds;
use crate::blueprint::{self, names};
use crate::cluster::reference;
use crate::redacted::Redacted;

/// Length of a password that we make.
const PASSWORD_CHARS: usize = 16;
/// What it is made of: no symbols, so that it survives every shell and URL.
const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

impl Provisioner {
    /// Makes the auth Secret where there is none; copies its date to the object.
    pub(super) async fn ensure_auth(
        &self,
        bouncer: &mut PgBouncer,
        found: Option<Secret>,
    ) -> Result<(), Blocked> {
        let secret = if let Some(secret) = found {
            secret
        } else {
            let made = secret(bouncer, &names::auth_secret(bouncer), self.clock.now())?;
            let made = self.cluster.create_or_get(&made).await?;
            // Another may have been faster.
            auth_secret(bouncer, &made)?;
            made
        };
        self.copy_date(bouncer, &secret).await
    }

    /// `spec.authSecret.activeFrom` follows the Secret's annotation.
    async fn copy_date(&self, bouncer: &mut PgBouncer, secret: &Secret) -> Result<(), Blocked> {
        let Some(since) = secret.annotations().get(AUTH_ACTIVE_FROM) else {
            return Ok(());
        };
        let known = bouncer
            .spec
            .auth_secret
            .as_ref()
            .and_then(|auth| auth.active_from.as_ref());
        if known == Some(since) {
            return Ok(());
        }
        let patch = json!({ "spec": { "authSecret": { "activeFrom": since } } });
        let patch = compare_and_swap(bouncer, patch);
        *bouncer = self.cluster.patch(&reference(bouncer), &patch).await?;
        Ok(())
    }
}

pub(super) fn secret(
    bouncer: &PgBouncer,
    name: &str,
    now: OffsetDateTime,
) -> Result<Secret, Blocked> {
    let password = password().ok_or_else(|| Blocked::EmptyAuthSecret(reference(bouncer)))?;
    let mut metadata = blueprint::metadata(bouncer, name.to_owned());
    metadata.annotations = Some([(AUTH_ACTIVE_FROM.to_owned(), rfc3339_seconds(now))].into());
    let data = [
        ("username".to_owned(), ByteString(names::ADMIN_USER.into())),
        (
            "password".to_owned(),
            ByteString(password.expose().clone().into_bytes()),
        ),
    ];
    Ok(Secret {
        metadata,
        type_: Some("kubernetes.io/basic-auth".to_owned()),
        data: Some(data.into()),
        ..Secret::default()
    })
}

/// A password with an upper-case letter, a lower-case letter and a digit; `None` if the system has
/// no randomness, in which case nothing else works either.
fn password() -> Option<Redacted<String>> {
    let random = SystemRandom::new();
    loop {
        let mut password = String::with_capacity(PASSWORD_CHARS);
        while password.len() < PASSWORD_CHARS {
            let mut bytes = [0_u8; 32];
            random.fill(&mut bytes).ok()?;
            // 248 is the largest multiple of 62 in a byte: beyond it, some letters come more often.
            let fair = bytes
                .iter()
                .filter(|byte| **byte < 248)
                .map(|byte| usize::from(*byte) % 62);
            password.extend(
                fair.take(PASSWORD_CHARS - password.len())
                    .map(|at| char::from(ALPHABET[at])),
            );
        }
        let has = |kind: fn(&char) -> bool| password.chars().any(|letter| kind(&letter));
        if has(char::is_ascii_uppercase)
            && has(char::is_ascii_lowercase)
            && has(char::is_ascii_digit)
        {
            return Some(Redacted::new(password));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_has_letters_of_both_cases_and_digits_and_is_never_the_same() {
        let first = password().unwrap();
        assert_eq!(first.expose().len(), PASSWORD_CHARS);
        assert!(
            first
                .expose()
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric())
        );
        assert_ne!(first.expose(), password().unwrap().expose());
    }
}
