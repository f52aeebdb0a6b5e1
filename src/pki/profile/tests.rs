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

#[test]
fn attributes_of_a_subject_have_the_types_of_x509() {
    let long = |count: usize| "x".repeat(count);
    let subject = |field: &str, value: &str| {
        let value = vec![value.to_owned()];
        let mut subject = Subject::default();
        match field {
            "organizations" => subject.organizations = value,
            "organizationalUnits" => subject.organizational_units = value,
            "countries" => subject.countries = value,
            "localities" => subject.localities = value,
            "provinces" => subject.provinces = value,
            "streetAddresses" => subject.street_addresses = value,
            "postalCodes" => subject.postal_codes = value,
            _ => subject.serial_number = value.into_iter().next(),
        }
        LeafProfile {
            subject,
            ..server("ledger")
        }
    };
    for (field, good, bad) in [
        (
            "organizations",
            vec![long(64), "Größe & Söhne".into()],
            vec![long(65), "a\nb".into(), String::new()],
        ),
        (
            "organizationalUnits",
            vec![long(64)],
            vec![long(65), "a\u{7f}".into()],
        ),
        (
            "countries",
            vec!["DE".into(), "ch".into()],
            vec!["Germany".into(), "D".into(), "D1".into(), "ÄÖ".into()],
        ),
        (
            "localities",
            vec![long(128)],
            vec![long(129), "a\tb".into()],
        ),
        (
            "provinces",
            vec![long(128)],
            vec![long(129), "a\u{85}b".into()],
        ),
        (
            "streetAddresses",
            vec![long(128)],
            vec![long(129), "a\0".into()],
        ),
        (
            "postalCodes",
            vec![long(40), "AD100".into()],
            vec![long(41), "a\r".into()],
        ),
        (
            "serialNumber",
            vec![long(64), "A-1/2 (b)".into()],
            vec![long(65), "a_b".into(), "ä".into(), "a@b".into()],
        ),
    ] {
        for value in good {
            subject(field, &value).check().unwrap();
        }
        for value in bad {
            let error = subject(field, &value).check().unwrap_err().to_string();
            let told = format!("subject.{field} has the value {value:?}: write ");
            assert!(error.starts_with(&told), "{error}");
        }
    }
    for name in ["a\nb", "a\0", "\u{1b}[1m"] {
        let mut profile = server("ledger");
        profile.common_name = Some(name.to_owned());
        let error = profile.check().unwrap_err().to_string();
        assert!(
            error.contains("commonName") && error.contains("control character"),
            "{error}"
        );
    }
}

#[test]
fn a_name_that_makes_a_reader_refuse_the_certificate_is_refused() {
    for name in ["10.0.0.1", "*.10.0.0.1", "1.2.3", "0x7f.1", "a.1"] {
        let error = server(name).check().unwrap_err().to_string();
        assert!(error.contains("ipAddresses"), "{error}");
    }
    for name in ["1a.example", "10.example", "a.b1"] {
        server(name).check().unwrap();
    }
    let with_address = |address: &str| LeafProfile {
        ip_addresses: vec![address.parse().unwrap()],
        ..server("ledger")
    };
    let error = with_address("::ffff:10.0.0.1")
        .check()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("ipAddresses has ::ffff:10.0.0.1") && error.ends_with("write 10.0.0.1"),
        "{error}"
    );
    for address in ["10.0.0.1", "::1", "2001:db8::1", "::10.0.0.1"] {
        with_address(address).check().unwrap();
    }
    for (address, is_good) in [
        ("a.b+c@mail.example.org", true),
        ("a@b@c", false),
        ("a b@c", false),
        (".a@b", false),
        ("a..b@c", false),
        ("a@b..c", false),
        ("a@*.b", false),
        ("a@-b", false),
        ("\"a\"@b", false),
        ("a@[10.0.0.1]", false),
        ("a@10.0.0.1", false),
        ("a@", false),
        ("ä@b", false),
    ] {
        let profile = LeafProfile {
            email_addresses: vec![address.to_owned()],
            ..server("ledger")
        };
        assert_eq!(profile.check().is_ok(), is_good, "{address}");
    }
    let profile = LeafProfile {
        uris: vec!["spiffe://a/%zz".to_owned()],
        ..server("ledger")
    };
    assert!(
        profile
            .check()
            .unwrap_err()
            .to_string()
            .contains("spiffe://a/%zz")
    );
}
