//! What the built-in policy lets a tenant ask of an issuer that signs for several namespaces.

use super::tests::request;
use super::*;
use crate::api::tls::IssuerRef;

/// The paths that deny a request of the alias for those usages.
fn denials(usages: &[&str], kind: &str, change: impl FnOnce(&mut Request)) -> Vec<String> {
    let mut asked = request();
    asked.issuer = IssuerRef {
        api_group: None,
        kind: kind.to_owned(),
        name: "company".to_owned(),
    };
    asked.usages = ["digital signature", "key encipherment"]
        .iter()
        .chain(usages)
        .map(|usage| (*usage).to_owned())
        .collect();
    let is_server = usages == ["server auth"];
    let alias = if is_server { "server" } else { "client" };
    asked.name = format!("billing-{alias}-cert");
    let host = "billing.treasury.svc";
    asked.common_name = Some(if is_server { host } else { "pgbouncer" }.to_owned());
    asked.dns_names.clear();
    asked.ip_addresses.clear();
    change(&mut asked);
    match Policies::builtin().review(&asked) {
        Verdict::Allowed { .. } => Vec::new(),
        Verdict::Denied { violations } => violations.into_iter().map(|v| v.path).collect(),
    }
}

const CLIENT: &[&str] = &["client auth"];
const SERVER: &[&str] = &["server auth"];

#[test]
fn a_dns_name_that_may_be_a_user_is_for_servers_alone() {
    let asks = |usages: &[&str], kind: &str, name: &str| {
        denials(usages, kind, |asked| {
            asked.dns_names = vec![name.to_owned()]
        })
    };
    for name in [
        "jane.doe",
        "JANE.DOE",
        "jane.doe.",
        "*.example.org",
        "a.example.org",
        "10.1.2.3",
        "treasury.svc",
        "jane",
        "JANE",
        "*",
        "localhost",
        "billing",
        "*.treasury.svc.example.org",
    ] {
        for usages in [CLIENT, &["server auth", "client auth"], &[]] {
            let found = asks(usages, "ClusterIssuer", name);
            assert!(!found.is_empty(), "{name} for {usages:?}");
            assert!(
                found.iter().all(|path| path.contains("dnsNames")),
                "{found:?}"
            );
        }
        assert_eq!(
            asks(CLIENT, "Issuer", name),
            [""; 0],
            "{name} of its own Issuer"
        );
    }
    for name in [
        "jane.doe",
        "*.example.org",
        "localhost",
        "billing",
        "BILLING.treasury.svc",
    ] {
        assert_eq!(asks(SERVER, "ClusterIssuer", name), [""; 0], "{name}");
    }
    for name in [
        "billing.treasury.svc",
        "Billing.Treasury.SVC",
        "*.treasury.svc",
        "billing-0.billing-pods.treasury.svc.cluster.local",
    ] {
        assert_eq!(asks(CLIENT, "ClusterIssuer", name), [""; 0], "{name}");
    }
    for name in [
        "x.vault.svc",
        "*.svc",
        "*.cluster.local",
        "x.nottreasury.svc",
        "*.vault.svc.",
    ] {
        assert!(!asks(CLIENT, "ClusterIssuer", name).is_empty(), "{name}");
    }
}

#[test]
fn other_names_are_judged_by_what_compares_them() {
    let of = |change: fn(&mut Request)| denials(CLIENT, "ClusterIssuer", change);
    let address = |asked: &mut Request| asked.ip_addresses = vec![[10, 1, 2, 3].into()];
    assert_eq!(of(address), ["spec.allowed.ipAddresses.validations[0]"]);
    assert_eq!(denials(SERVER, "ClusterIssuer", address), [""; 0]);
    assert_eq!(denials(CLIENT, "Issuer", address), [""; 0]);
    // PgBouncer and PostgreSQL compare none of these with a user.
    assert_eq!(
        of(|asked| asked.uris = vec!["spiffe://example.org/jane".into()]),
        [""; 0]
    );
    assert_eq!(
        of(|asked| asked.email_addresses = vec!["jane@example.org".into()]),
        [""; 0]
    );
    assert_eq!(
        of(|asked| asked.subject.serial_number = Some("postgres".into())),
        [""; 0]
    );
    for name in [
        "postgres",
        "PGBOUNCER",
        "*",
        "*.example.org",
        "x.vault.svc",
        "*.treasury.svc.",
        "",
    ] {
        let found = denials(CLIENT, "ClusterIssuer", |asked| {
            asked.common_name = Some(name.to_owned());
        });
        assert!(!found.is_empty(), "{name}");
    }
    let absent = of(|asked| asked.common_name = None);
    assert_eq!(absent, ["spec.allowed.commonName.required"]);
}
