//! What a specification means where it says nothing
//! (docs/kubedb-compatibility.md, "Defaults").
//!
//! There is no admission webhook: the provisioner writes the completed fields back, so that users
//! see them as KubeDB shows them. What concerns only the pods (resources, security context, probes)
//! is not stored but filled in when the pods' template is built.

use crate::api::CertificateSpec;
use crate::api::pgbouncer::{AuthSecret, Configuration, DeletionPolicy, PgBouncerSpec};
use crate::api::tls::{SslMode, TlsConfig};
use crate::blueprint::names;
use crate::names::Alias;

/// What has to be known of the common issuer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IssuerKind {
    /// It signs what it is asked to.
    #[default]
    Private,
    /// ACME: it signs server certificates only.
    Acme,
}

/// Fills in what `spec` leaves open. What it says is never changed, so completing twice is
/// completing once.
pub fn complete(spec: &PgBouncerSpec, name: &str, issuer: IssuerKind) -> PgBouncerSpec {
    let mut spec = spec.clone();
    spec.replicas.get_or_insert(1);
    spec.deletion_policy.get_or_insert(DeletionPolicy::Delete);
    let unsaid = if spec.tls.is_some() {
        SslMode::VerifyFull
    } else {
        SslMode::Disable
    };
    spec.ssl_mode.get_or_insert(unsaid);
    let auth = spec.auth_secret.get_or_insert_with(|| AuthSecret {
        api_group: String::new(),
        kind: "Secret".to_owned(),
        name: String::new(),
        secret_store_name: None,
        externally_managed: None,
        rotate_after: None,
        active_from: None,
    });
    if auth.kind.is_empty() {
        "Secret".clone_into(&mut auth.kind);
    }
    if auth.name.is_empty() {
        auth.name = names::default_auth_secret(name);
    }
    if let Some(former) = spec.config_secret.take()
        && spec.configuration.is_none()
        && !former.name.is_empty()
    {
        spec.configuration = Some(Configuration {
            secret_name: Some(former.name),
            ..Configuration::default()
        });
    }
    if let Some(tls) = &mut spec.tls {
        complete_tls(tls, name, issuer);
    }
    spec
}

/// Completes the list of certificates: entries stay where they are, missing ones are appended.
pub fn complete_tls(tls: &mut TlsConfig, name: &str, issuer: IssuerKind) {
    if tls.issuer_ref.is_none() {
        return;
    }
    let aliases = match issuer {
        IssuerKind::Private => &Alias::ALL[..],
        IssuerKind::Acme => &[Alias::Server],
    };
    for alias in aliases {
        let secret_name = names::certificate(name, *alias);
        match tls
            .certificates
            .iter_mut()
            .find(|entry| entry.alias == alias.as_str())
        {
            Some(entry) => {
                if entry.secret_name.as_deref().is_none_or(str::is_empty) {
                    entry.secret_name = Some(secret_name);
                }
            }
            None => tls.certificates.push(CertificateSpec {
                alias: alias.as_str().to_owned(),
                secret_name: Some(secret_name),
                ..CertificateSpec::default()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::common::LocalRef;
    use crate::blueprint::testing;

    #[test]
    fn a_bare_object_gets_the_stored_defaults() {
        let spec = complete(
            &testing::bouncer("billing").spec,
            "billing",
            IssuerKind::Private,
        );
        assert_eq!(spec.replicas, Some(1));
        assert_eq!(spec.ssl_mode, Some(SslMode::Disable));
        assert_eq!(spec.deletion_policy, Some(DeletionPolicy::Delete));
        assert_eq!(
            spec.auth_secret.map(|auth| auth.name),
            Some("billing-auth".to_owned())
        );
    }

    #[test]
    fn tls_added_to_a_stored_disable_leaves_disable() {
        let bare = complete(
            &testing::bouncer("billing").spec,
            "billing",
            IssuerKind::Private,
        );
        let mut with_tls = bare;
        with_tls.tls = testing::tls_bouncer("billing").spec.tls;
        let spec = complete(&with_tls, "billing", IssuerKind::Private);
        assert_eq!(spec.ssl_mode, Some(SslMode::Disable));
    }

    #[test]
    fn missing_certificates_are_appended_in_their_order() {
        let mut bouncer = testing::tls_bouncer("billing");
        bouncer.spec.tls.as_mut().unwrap().certificates = vec![CertificateSpec {
            alias: "client".into(),
            ..CertificateSpec::default()
        }];
        let spec = complete(&bouncer.spec, "billing", IssuerKind::Private);
        assert_eq!(spec.ssl_mode, Some(SslMode::VerifyFull));
        let entries: Vec<_> = spec
            .tls
            .as_ref()
            .unwrap()
            .certificates
            .iter()
            .map(|entry| (entry.alias.as_str(), entry.secret_name.as_deref().unwrap()))
            .collect();
        assert_eq!(
            entries,
            [
                ("client", "billing-client-cert"),
                ("server", "billing-server-cert"),
                ("metrics-exporter", "billing-metrics-exporter-cert"),
            ]
        );
        assert_eq!(complete(&spec, "billing", IssuerKind::Private), spec);
    }

    #[test]
    fn an_acme_issuer_completes_the_server_only() {
        let spec = complete(
            &testing::tls_bouncer("billing").spec,
            "billing",
            IssuerKind::Acme,
        );
        let aliases: Vec<_> = spec
            .tls
            .unwrap()
            .certificates
            .into_iter()
            .map(|entry| entry.alias)
            .collect();
        assert_eq!(aliases, ["server"]);
    }

    #[test]
    fn the_former_place_of_the_configuration_is_folded_in() {
        let mut bouncer = testing::bouncer("billing");
        bouncer.spec.config_secret = Some(LocalRef {
            name: "tuned".into(),
        });
        let spec = complete(&bouncer.spec, "billing", IssuerKind::Private);
        assert_eq!(
            spec.configuration.unwrap().secret_name.as_deref(),
            Some("tuned")
        );
        assert_eq!(spec.config_secret, None);
    }
}
