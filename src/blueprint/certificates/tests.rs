//! What is wanted, from the outside.

use super::*;
use crate::blueprint::defaults::{IssuerKind, complete};
use crate::blueprint::testing;

fn completed(mut bouncer: PgBouncer) -> PgBouncer {
    bouncer.spec = complete(&bouncer.spec, &bouncer.name_any(), IssuerKind::Private);
    bouncer
}

fn server(bouncer: PgBouncer) -> Result<Wanted, WantedError> {
    wanted(&completed(bouncer), &LoadBalancer::default()).map(|mut all| all.remove(0))
}

#[test]
fn a_server_certificate_covers_the_service_its_pods_and_the_machine_itself() {
    let wanted = server(testing::tls_bouncer("billing")).unwrap();
    assert_eq!(wanted.profile.common_name, "billing.shop.svc");
    assert_eq!(
        wanted.profile.dns_names,
        [
            "*.billing-pods.shop.svc",
            "*.billing-pods.shop.svc.cluster.local",
            "*.billing.shop.svc",
            "billing",
            "billing.shop.svc",
            "localhost",
        ]
    );
    assert_eq!(wanted.profile.ip_addresses, [IpAddr::from([127, 0, 0, 1])]);
    assert_eq!(wanted.profile.usage, Usage::ServerAndClient);
    assert_eq!(wanted.profile.duration, DURATION_DEFAULT);
    assert_eq!(wanted.algorithm, KeyAlgorithm::EcdsaP256);
}

#[test]
fn a_client_certificate_names_the_admin_user_and_nothing_else() {
    let all = wanted(
        &completed(testing::tls_bouncer("billing")),
        &LoadBalancer::default(),
    );
    let client = all.unwrap().remove(1);
    assert_eq!(client.alias, Alias::Client);
    assert_eq!(client.profile.common_name, "pgbouncer");
    assert!(client.profile.dns_names.is_empty() && client.profile.ip_addresses.is_empty());
    assert_eq!(client.profile.usage, Usage::Client);
    let annotations = client.secret_annotations();
    assert_eq!(annotations["cert-manager.io/alt-names"], "");
    assert_eq!(
        annotations["cert-manager.io/certificate-name"],
        "billing-client-cert"
    );
    assert!(!annotations.contains_key("cert-manager.io/subject-organizations"));
}

#[test]
fn a_load_balancers_addresses_are_added() {
    let outside = LoadBalancer {
        hostnames: vec!["pool.example.org".into()],
        ips: vec![IpAddr::from([192, 0, 2, 7])],
    };
    let all = wanted(&completed(testing::tls_bouncer("billing")), &outside).unwrap();
    assert!(
        all[0]
            .profile
            .dns_names
            .contains(&"pool.example.org".to_owned())
    );
    assert!(
        all[0]
            .profile
            .ip_addresses
            .contains(&IpAddr::from([192, 0, 2, 7]))
    );
}

#[test]
fn a_renewal_before_the_beginning_is_refused() {
    let mut bouncer = testing::tls_bouncer("billing");
    bouncer.spec.tls.as_mut().unwrap().certificates = vec![CertificateSpec {
        alias: "server".into(),
        duration: Some("240h".into()),
        renew_before: Some("720h".into()),
        ..CertificateSpec::default()
    }];
    assert!(matches!(
        server(bouncer),
        Err(WantedError::RenewsTooEarly { .. })
    ));
}

#[test]
fn an_issuer_of_another_group_is_refused() {
    let mut bouncer = testing::tls_bouncer("billing");
    bouncer
        .spec
        .tls
        .as_mut()
        .unwrap()
        .issuer_ref
        .as_mut()
        .unwrap()
        .api_group = Some("example.org".into());
    assert!(matches!(
        server(bouncer),
        Err(WantedError::ForeignIssuer { .. })
    ));
}

#[test]
fn two_aliases_cannot_share_a_secret() {
    let mut bouncer = testing::tls_bouncer("billing");
    bouncer.spec.tls.as_mut().unwrap().certificates = vec![CertificateSpec {
        alias: "client".into(),
        secret_name: Some("billing-server-cert".into()),
        ..CertificateSpec::default()
    }];
    assert!(matches!(
        server(bouncer),
        Err(WantedError::SharedSecret { .. })
    ));
}

#[test]
fn an_entry_of_its_own_may_name_an_issuer_of_any_group() {
    let mut bouncer = testing::tls_bouncer("billing");
    bouncer.spec.tls.as_mut().unwrap().certificates = vec![CertificateSpec {
        alias: "server".into(),
        issuer_ref: Some(IssuerRef {
            api_group: Some("example.org".into()),
            kind: "Beacon".into(),
            name: "north".into(),
        }),
        ..CertificateSpec::default()
    }];
    assert_eq!(server(bouncer).unwrap().issuer.group(), "example.org");
}
