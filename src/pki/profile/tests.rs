use super::*;

fn server(dns_name: &str) -> LeafProfile {
    LeafProfile {
        dns_names: vec![dns_name.to_owned()],
        ..LeafProfile::new(LeafUsage::ServerAndClient, "ledger.treasury.svc")
    }
}

#[test]
fn names_of_the_contract_are_accepted() {
    for name in [
        "*.ledger-pods.treasury.svc",
        "localhost",
        "ledger",
        "a_b.example",
    ] {
        server(name).check().unwrap();
    }
}

#[test]
fn what_is_no_dns_name_is_refused_with_its_rule() {
    for name in [
        "",
        "a..b",
        "-a.example",
        "bücher.example",
        "*",
        "a.*.b",
        "10.0.0.1/8",
    ] {
        let error = server(name).check().unwrap_err();
        assert!(
            matches!(error, ProfileError::DnsName { .. }),
            "{name}: {error}"
        );
    }
}

#[test]
fn a_profile_that_names_nobody_is_refused() {
    let mut profile = LeafProfile::new(LeafUsage::Client, "clerk");
    profile.common_name = None;
    assert_eq!(profile.check(), Err(ProfileError::NamesNobody));
}

#[test]
fn what_is_no_uri_or_address_is_refused() {
    for (uri, is_good) in [("spiffe://a/b", true), ("a/b", false), ("x:\u{fc}", false)] {
        let profile = LeafProfile {
            uris: vec![uri.to_owned()],
            ..server("ledger")
        };
        assert_eq!(profile.check().is_ok(), is_good, "{uri}");
        let pointers = Pointers {
            ocsp_servers: vec![uri.to_owned()],
            ..Pointers::default()
        };
        assert_eq!(pointers.check().is_ok(), is_good, "{uri}");
    }
    for (address, is_good) in [("ops@x", true), ("ops", false), ("@x", false)] {
        let profile = LeafProfile {
            email_addresses: vec![address.to_owned()],
            ..server("ledger")
        };
        assert_eq!(profile.check().is_ok(), is_good, "{address}");
    }
}

#[test]
fn limits_are_limits() {
    let mut profile = server("ledger");
    profile.lifetime = Duration::minutes(4);
    assert!(matches!(
        profile.check(),
        Err(ProfileError::Lifetime { .. })
    ));
    let mut profile = server("ledger");
    profile.common_name = Some("x".repeat(65));
    assert!(matches!(
        profile.check(),
        Err(ProfileError::CommonName { length: 65, .. })
    ));
    let mut profile = server("ledger");
    profile.subject.countries = vec![String::new()];
    let error = profile.check().unwrap_err().to_string();
    assert!(error.contains("subject.countries"), "{error}");
}
