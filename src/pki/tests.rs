//! Everything issued is read by strangers: rustls-webpki, x509-parser, openssl.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyUsagePurpose};
use time::{Duration, OffsetDateTime};

use super::authority::{CaError, CertificateAuthority, Issued, SignError, self_signed_leaf};
use super::bundle::TrustBundle;
use super::chain::{CertificateChain, ChainError, Expectation, KeyedChain, Verdict};
use super::facts::read_chain;
use super::key::{KeyAlgorithm, KeyEncoding, PrivateKey};
use super::profile::{CaProfile, LeafProfile, LeafUsage, Outliving, Pointers};
use super::testing::{ALGORITHMS, NOW, client, key, openssl, openssl_verify, root, serial, server};

fn sign(ca: &CertificateAuthority, profile: &LeafProfile, key: &PrivateKey) -> Issued {
    ca.sign(profile, key.public_key(), serial(7), NOW).unwrap()
}

fn assert_strangers_agree(issued: &Issued, profile: &LeafProfile) {
    let wanted = Expectation::of(profile, NOW);
    issued.chain.verify(&issued.anchors, &wanted).unwrap();
    for document in [issued.chain.to_pem(), issued.anchors.to_pem()] {
        let again = openssl(&["x509"], &document).unwrap();
        assert!(document.starts_with(&again), "openssl writes it otherwise");
    }
    openssl_verify(&issued.chain, &issued.anchors, "sslclient", NOW).unwrap();
    if *profile == server() {
        openssl_verify(&issued.chain, &issued.anchors, "sslserver", NOW).unwrap();
    }
}

#[test]
fn strangers_agree_with_leaves_of_every_key_under_cas_of_every_key() {
    let leaf_keys = ALGORITHMS.map(|algorithm| PrivateKey::generate(algorithm).unwrap());
    for ca_algorithm in ALGORITHMS {
        let ca_key = PrivateKey::generate(ca_algorithm).unwrap();
        let profile = CaProfile::new("Treasury root", Duration::days(400));
        let ca = CertificateAuthority::self_signed(&profile, ca_key, serial(1), NOW).unwrap();
        for leaf_key in &leaf_keys {
            for profile in [server(), client()] {
                assert_strangers_agree(&sign(&ca, &profile, leaf_key), &profile);
            }
        }
    }
}

#[test]
fn strangers_agree_with_an_rsa_leaf_under_an_rsa_ca_and_its_secret_is_the_contracts() {
    let ca_key = PrivateKey::generate(KeyAlgorithm::Rsa2048).unwrap();
    let profile = CaProfile::new("Treasury root", Duration::days(400));
    let ca = CertificateAuthority::self_signed(&profile, ca_key, serial(1), NOW).unwrap();
    let leaf_key = PrivateKey::generate(KeyAlgorithm::Rsa2048).unwrap();
    let issued = sign(&ca, &server(), &leaf_key);
    assert_strangers_agree(&issued, &server());
    let wanted = Expectation::of(&server(), NOW);
    let data = KeyedChain::from_parts(issued.chain, leaf_key, KeyEncoding::Pkcs1)
        .map(|keyed| keyed.verify(&issued.anchors, &wanted).unwrap())
        .unwrap()
        .into_secret_data();
    assert!(
        data.tls_key
            .expose()
            .starts_with("-----BEGIN RSA PRIVATE KEY-----\n")
    );
    assert_eq!(read_chain(&data.tls_crt).unwrap().len(), 1);
    assert_eq!(data.ca_crt, ca.certificate_pem());
    // What was written can be read, proven and written again without a change.
    let again = KeyedChain::new(&data.tls_crt, data.tls_key.expose())
        .unwrap()
        .verify(&TrustBundle::from_pem(&data.ca_crt).unwrap(), &wanted)
        .unwrap()
        .into_secret_data();
    assert_eq!((again.tls_crt, again.tls_key), (data.tls_crt, data.tls_key));
}

#[test]
fn a_server_certificate_states_what_the_contract_says() {
    let issued = sign(&root("Treasury root"), &server(), &key());
    let text = openssl(&["x509", "-noout", "-text"], &issued.chain.to_pem()).unwrap();
    for line in [
        "Version: 3 (0x2)",
        "Issuer: CN = Treasury root",
        "Subject: CN = ledger.treasury.svc",
        "Not Before: Apr  5 06:02:08 2031 GMT",
        "Not After : Jul  4 06:07:08 2031 GMT",
        "X509v3 Key Usage: critical",
        "Digital Signature",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "X509v3 Basic Constraints: critical",
        "CA:FALSE",
        "X509v3 Subject Key Identifier",
        "X509v3 Authority Key Identifier",
        "DNS:*.ledger-pods.treasury.svc, DNS:ledger.treasury.svc, DNS:localhost, IP Address:127.0.0.1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("Key Encipherment"), "{text}");
    let rsa = PrivateKey::generate(KeyAlgorithm::Rsa2048).unwrap();
    let issued = sign(&root("Treasury root"), &server(), &rsa);
    let text = openssl(&["x509", "-noout", "-text"], &issued.chain.to_pem()).unwrap();
    assert!(
        text.contains("Digital Signature, Key Encipherment"),
        "{text}"
    );
}

#[test]
fn a_server_certificate_of_another_issuer_needs_neither_client_use_nor_a_common_name() {
    let public = LeafProfile {
        usage: LeafUsage::Server,
        common_name: None,
        ..server()
    };
    let ca = root("Public root");
    let issued = sign(&ca, &public, &key());
    let wanted = Expectation::of(&server(), NOW);
    issued.chain.verify(ca.anchors(), &wanted).unwrap();
    // Another common name is that of another; a client's common name is its user.
    let other = LeafProfile {
        common_name: Some("somebody".to_owned()),
        ..public.clone()
    };
    let verdict = sign(&ca, &other, &key())
        .chain
        .verify(ca.anchors(), &wanted);
    assert!(
        matches!(verdict, Err(Verdict::CommonNameDiffers { .. })),
        "{verdict:?}"
    );
    let as_client = Expectation::of(&client(), NOW);
    let verdict = issued.chain.verify(ca.anchors(), &as_client);
    assert!(
        matches!(verdict, Err(Verdict::WrongUsage { .. })),
        "{verdict:?}"
    );
    let unnamed = LeafProfile {
        usage: LeafUsage::Client,
        common_name: None,
        ..server()
    };
    let verdict = sign(&ca, &unnamed, &key())
        .chain
        .verify(ca.anchors(), &as_client);
    assert!(
        matches!(verdict, Err(Verdict::CommonNameDiffers { found: None, .. })),
        "{verdict:?}"
    );
}

#[test]
fn a_client_certificate_has_no_alternative_names_and_no_server_use() {
    let issued = sign(&root("Treasury root"), &client(), &key());
    let text = openssl(&["x509", "-noout", "-text"], &issued.chain.to_pem()).unwrap();
    assert!(!text.contains("Alternative Name"), "{text}");
    assert!(!text.contains("TLS Web Server Authentication"), "{text}");
    let facts = issued.chain.leaf_facts().unwrap();
    assert_eq!(facts.common_name.as_deref(), Some("clerk"));
    assert!(facts.client_auth && !facts.server_auth && !facts.is_ca);
    let as_server = Expectation {
        usage: server().usage,
        ..Expectation::of(&client(), NOW)
    };
    let verdict = issued
        .chain
        .verify(&issued.anchors, &as_server)
        .unwrap_err();
    assert!(matches!(verdict, Verdict::WrongUsage { .. }), "{verdict}");
}

#[test]
fn every_value_of_a_subject_and_every_kind_of_name_arrives() {
    let mut profile = server();
    profile.subject.organizations = vec!["Büro, Nord".to_owned(), "Treasury".to_owned()];
    profile.subject.countries = vec!["SE".to_owned()];
    profile.subject.serial_number = Some("+7".to_owned());
    profile.uris = vec!["spiffe://treasury/ledger".to_owned()];
    profile.email_addresses = vec!["ops@treasury.example".to_owned()];
    profile.ip_addresses.push("fd00::7".parse().unwrap());
    let issued = sign(&root("Treasury root"), &profile, &key());
    let facts = issued.chain.leaf_facts().unwrap();
    assert_eq!(
        facts.subject,
        "serialNumber=\\+7,CN=ledger.treasury.svc,O=Treasury,O=Büro\\, Nord,C=SE"
    );
    assert_eq!(facts.uris, profile.uris);
    assert_eq!(facts.email_addresses, profile.email_addresses);
    assert_eq!(facts.ip_addresses, profile.ip_addresses);
    openssl_verify(&issued.chain, &issued.anchors, "sslserver", NOW).unwrap();
}

#[test]
fn an_intermediate_is_served_and_its_root_is_trusted() {
    let root = root("Treasury root");
    let profile = CaProfile {
        path_length: Some(0),
        ..CaProfile::new("Treasury issuing", Duration::days(365))
    };
    let issuing = root.sign_ca(&profile, key(), serial(2), NOW).unwrap();
    // The Secret of such a CA: tls.crt is the intermediate alone, ca.crt the root.
    let loaded = CertificateAuthority::load(
        &super::pem::write_certificates([issuing.certificate()]),
        issuing.key().to_pem(KeyEncoding::Pkcs8).expose(),
        Some(&root.certificate_pem()),
    )
    .unwrap();
    let issued = sign(&loaded, &server(), &key());
    let served: Vec<String> = issued
        .chain
        .facts()
        .into_iter()
        .map(|facts| facts.subject)
        .collect();
    assert_eq!(served, ["CN=ledger.treasury.svc", "CN=Treasury issuing"]);
    assert_eq!(&issued.anchors, root.anchors());
    assert_strangers_agree(&issued, &server());
}

#[test]
fn an_intermediate_without_its_root_is_no_ca_that_clients_could_trust() {
    let profile = CaProfile::new("Treasury issuing", Duration::days(365));
    let issuing = root("Treasury root")
        .sign_ca(&profile, key(), serial(2), NOW)
        .unwrap();
    let alone = super::pem::write_certificates([issuing.certificate()]);
    let key = issuing.key().to_pem(KeyEncoding::Pkcs1);
    // Another root of the same name does not help: it did not sign.
    let impostor = root("Treasury root").certificate_pem();
    for roots in [None, Some(impostor.as_str())] {
        let error = CertificateAuthority::load(&alone, key.expose(), roots).unwrap_err();
        assert!(matches!(error, CaError::RootMissing { .. }), "{error}");
    }
}

#[test]
fn a_ca_made_elsewhere_signs_under_its_name_byte_for_byte() {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Grüne Bank");
    let component = DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 25]);
    params.distinguished_name.push(
        component,
        rcgen::DnValue::Ia5String("example".try_into().unwrap()),
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.use_authority_key_identifier_extension = true;
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&ca_key).unwrap();
    let ca = CertificateAuthority::load(&certificate.pem(), &ca_key.serialize_pem(), None).unwrap();
    let issued = sign(&ca, &server(), &key());
    assert_eq!(
        issued.chain.leaf_facts().unwrap().issuer,
        "DC=example,O=Grüne Bank"
    );
    assert_strangers_agree(&issued, &server());
}

#[test]
fn what_is_not_a_ca_says_what_it_is() {
    let (ours, theirs) = (root("Ours"), root("Theirs"));
    let pem = |key: &PrivateKey| key.to_pem(KeyEncoding::Pkcs8);
    let error =
        CertificateAuthority::load(&ours.certificate_pem(), pem(theirs.key()).expose(), None);
    assert_eq!(
        error.unwrap_err(),
        CaError::KeyMismatch {
            subject: "CN=Ours".to_owned()
        }
    );
    let leaf_key = key();
    let leaf = sign(&ours, &server(), &leaf_key).chain.to_pem();
    let error = CertificateAuthority::load(&leaf, pem(&leaf_key).expose(), None).unwrap_err();
    assert!(matches!(error, CaError::NotCa { .. }), "{error}");
    let error = CertificateAuthority::load("", pem(&leaf_key).expose(), None).unwrap_err();
    assert!(matches!(error, CaError::Certificate(_)), "{error}");
    let error = CertificateAuthority::load(&leaf, &leaf, None).unwrap_err();
    assert!(matches!(error, CaError::Key(_)), "{error}");
}

#[test]
fn a_ca_out_of_date_does_not_sign() {
    let ca = root("Treasury root");
    let at = |now: OffsetDateTime| {
        ca.sign(&server(), key().public_key(), serial(3), now)
            .unwrap_err()
    };
    assert!(matches!(
        at(NOW + Duration::days(4000)),
        SignError::Authority(CaError::Expired { .. })
    ));
    assert!(matches!(
        at(NOW - Duration::days(1)),
        SignError::Authority(CaError::NotYetValid { .. })
    ));
}

#[test]
fn a_leaf_that_would_outlive_its_ca_is_refused_or_clamped() {
    let root = root("Treasury root");
    let profile = CaProfile::new("Treasury issuing", Duration::days(30));
    let issuing = root.sign_ca(&profile, key(), serial(2), NOW).unwrap();
    let error = issuing
        .sign(&server(), key().public_key(), serial(3), NOW)
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("CN=Treasury issuing") && text.contains("720h"),
        "{text}"
    );
    let clamping = LeafProfile {
        outliving: Outliving::Clamp,
        ..server()
    };
    let issued = sign(&issuing, &clamping, &key());
    assert!(issued.clamped);
    let facts = issued.chain.leaf_facts().unwrap();
    assert_eq!(facts.not_after, NOW + Duration::days(30));
}

#[test]
fn limits_of_a_ca_hold_when_signing_not_when_connecting() {
    let profile = CaProfile {
        permitted_dns_domains: vec!["vault.svc".to_owned()],
        ..CaProfile::new("Narrow root", Duration::days(400))
    };
    let narrow = CertificateAuthority::self_signed(&profile, key(), serial(1), NOW).unwrap();
    let error = narrow
        .sign(&server(), key().public_key(), serial(2), NOW)
        .unwrap_err();
    let SignError::Constraints(verdict) = error else {
        panic!("{error}")
    };
    assert!(
        matches!(*verdict, Verdict::NamesForbidden { .. }),
        "{verdict}"
    );

    let flat = CaProfile {
        path_length: Some(0),
        ..CaProfile::new("Flat root", Duration::days(400))
    };
    let flat = CertificateAuthority::self_signed(&flat, key(), serial(1), NOW).unwrap();
    let below = CaProfile::new("Below", Duration::days(30));
    let error = flat.sign_ca(&below, key(), serial(2), NOW).unwrap_err();
    assert!(
        matches!(error, SignError::Authority(CaError::PathTooLong { .. })),
        "{error}"
    );
}

#[test]
fn a_self_signed_leaf_is_trusted_by_its_own_certificate_alone() {
    let leaf_key = key();
    let issued = self_signed_leaf(&server(), &leaf_key, serial(9), NOW).unwrap();
    assert_strangers_agree(&issued, &server());
    let other = self_signed_leaf(&server(), &key(), serial(8), NOW).unwrap();
    let verdict = issued
        .chain
        .verify(&other.anchors, &Expectation::of(&server(), NOW))
        .unwrap_err();
    assert!(matches!(verdict, Verdict::NoPath { .. }), "{verdict}");
}

#[test]
fn a_chain_that_clients_would_refuse_is_refused_with_the_facts() {
    let ca = root("Treasury root");
    let issued = sign(&ca, &server(), &key());
    let judge = |bundle: &TrustBundle, change: &dyn Fn(&mut Expectation)| {
        let mut wanted = Expectation::of(&server(), NOW);
        change(&mut wanted);
        issued.chain.verify(bundle, &wanted).unwrap_err()
    };
    let verdict = judge(root("Foreign root").anchors(), &|_| {});
    assert_eq!(
        verdict,
        Verdict::NoPath {
            leaf: "CN=ledger.treasury.svc".to_owned(),
            issuer: "CN=Treasury root".to_owned(),
            anchors: vec!["CN=Foreign root".to_owned()],
        }
    );
    let verdict = judge(ca.anchors(), &|wanted| {
        wanted.now = NOW + Duration::days(91);
    });
    assert!(
        matches!(&verdict, Verdict::Expired { who, .. } if who == "CN=ledger.treasury.svc"),
        "{verdict}"
    );
    let verdict = judge(ca.anchors(), &|wanted| {
        wanted.now = NOW - Duration::hours(1);
    });
    assert!(matches!(verdict, Verdict::NotYetValid { .. }), "{verdict}");
    let verdict = judge(ca.anchors(), &|wanted| {
        wanted.dns_names.push("vault.treasury.svc".to_owned());
    });
    assert!(
        matches!(&verdict, Verdict::NamesMissing { missing, .. } if missing == &["vault.treasury.svc"]),
        "{verdict}"
    );
    let verdict = judge(ca.anchors(), &|wanted| {
        wanted.common_name = Some("vault".to_owned());
    });
    assert!(
        matches!(verdict, Verdict::CommonNameDiffers { .. }),
        "{verdict}"
    );
}

#[test]
fn an_expired_root_is_named_although_the_leaf_is_young() {
    let profile = CaProfile::new("Short root", Duration::days(1));
    let short = CertificateAuthority::self_signed(&profile, key(), serial(1), NOW).unwrap();
    let leaf = LeafProfile {
        lifetime: Duration::hours(23),
        ..client()
    };
    let issued = sign(&short, &leaf, &key());
    // The same leaf against the root, a moment after the root ended; only the root is too old when
    // the leaf's own end is not looked at.
    let mut wanted = Expectation::of(&leaf, NOW + Duration::hours(25));
    let verdict = issued.chain.verify(short.anchors(), &wanted).unwrap_err();
    assert!(matches!(verdict, Verdict::Expired { .. }), "{verdict}");
    wanted.now = NOW + Duration::hours(22);
    issued.chain.verify(short.anchors(), &wanted).unwrap();
}

#[test]
fn a_key_of_another_certificate_makes_no_keyed_chain() {
    let issued = sign(&root("Treasury root"), &server(), &key());
    let error = KeyedChain::from_parts(issued.chain, key(), KeyEncoding::Pkcs1).unwrap_err();
    assert_eq!(
        error,
        ChainError::KeyMismatch {
            leaf: "CN=ledger.treasury.svc".to_owned()
        }
    );
}

#[test]
fn who_trusts_only_the_old_ca_trusts_the_new_one_by_its_cross_certificate() {
    let (old, new) = (root("Old root"), root("New root"));
    let issued = sign(&new, &server(), &key());
    let cross = old.cross_sign(new.certificate(), serial(5), NOW).unwrap();
    let crossed =
        CertificateChain::from_certificates(vec![issued.chain.leaf().clone(), cross]).unwrap();
    let wanted = Expectation::of(&server(), NOW);
    for bundle in [
        old.anchors(),
        new.anchors(),
        &new.anchors().union(old.anchors()),
    ] {
        crossed.verify(bundle, &wanted).unwrap();
        openssl_verify(&crossed, bundle, "sslserver", NOW).unwrap();
    }
    assert!(issued.chain.verify(old.anchors(), &wanted).is_err());
}

#[test]
fn where_to_find_more_about_the_issuer_is_stated_where_it_is_wanted() {
    let urls = |kind: &str| vec![format!("http://pki.treasury/{kind}")];
    let ca = root("Treasury root").with_pointers(Pointers {
        crl_distribution_points: urls("crl"),
        ocsp_servers: urls("ocsp"),
        issuing_certificate_urls: urls("ca"),
    });
    let issued = sign(&ca, &server(), &key());
    assert_strangers_agree(&issued, &server());
    let text = openssl(&["x509", "-noout", "-text"], &issued.chain.to_pem()).unwrap();
    for line in [
        "Full Name:\n                  URI:http://pki.treasury/crl",
        "OCSP - URI:http://pki.treasury/ocsp",
        "CA Issuers - URI:http://pki.treasury/ca",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_ca_made_with_openssl_as_tutorials_do_signs() {
    let arguments =
        "req -x509 -nodes -days 365 -newkey rsa:2048 -keyout - -subj /CN=tide/O=harbour";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let both = openssl(&arguments, "").unwrap();
    let ca = CertificateAuthority::load(&both, &both, None).unwrap();
    assert_eq!(ca.facts().subject, "O=harbour,CN=tide");
    let now = ca.facts().not_before + Duration::seconds(1);
    let issued = ca
        .sign(&server(), key().public_key(), serial(2), now)
        .unwrap();
    let leaf = issued.chain.leaf_facts().unwrap();
    // Dated back, but not to before its CA.
    assert_eq!(leaf.not_before, ca.facts().not_before);
    let wanted = Expectation::of(&server(), now);
    issued.chain.verify(&issued.anchors, &wanted).unwrap();
}
