//! What one reader refuses and another does not: the verdict is OpenSSL's, with its reason.

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::pki::authority::{CaError, CertificateAuthority};
use crate::pki::bundle::TrustBundle;
use crate::pki::chain::{CertificateChain, Verdict};
use crate::pki::key::{KeyEncoding, PrivateKey};
use crate::pki::path::Defect;
use crate::pki::pem::write_certificates;
use crate::pki::profile::LeafUsage;
use crate::pki::tbs::{self, Criticality, extension};
use crate::pki::testing::{Forged, NOW, key, openssl, serial, server};
use crate::pki::{der, oid};

type Der = CertificateDer<'static>;

/// `openssl verify` without `-x509_strict`, as libpq and PgBouncer call it.
pub(super) fn openssl_says(
    chain: &CertificateChain,
    bundle: &TrustBundle,
    now: OffsetDateTime,
) -> Result<String, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (roots, above) = (
        file("roots", &bundle.to_pem()),
        file("chain", &chain.to_pem()),
    );
    let at = now.unix_timestamp().to_string();
    let arguments = [
        "verify",
        "-no-CApath",
        "-no-CAstore",
        "-auth_level",
        "2",
        "-purpose",
        "sslserver",
        "-attime",
        &at,
        "-CAfile",
        &roots,
        "-untrusted",
        &above,
    ];
    openssl(&arguments, &chain.to_pem())
}

/// An issuing CA below a root, with these extensions besides their identifiers.
fn forge(issuing: Vec<Vec<u8>>, root: Vec<Vec<u8>>) -> [Der; 2] {
    let (own, above) = (issuing_key(), root_key());
    [
        Forged::ca("Issuing", own, ("Root", above))
            .extended(issuing)
            .sign(),
        Forged::ca("Root", above, ("Root", above))
            .extended(root)
            .sign(),
    ]
}

fn issuing_key() -> &'static PrivateKey {
    static KEY: std::sync::OnceLock<PrivateKey> = std::sync::OnceLock::new();
    KEY.get_or_init(key)
}

fn root_key() -> &'static PrivateKey {
    static KEY: std::sync::OnceLock<PrivateKey> = std::sync::OnceLock::new();
    KEY.get_or_init(key)
}

fn load([issuing, root]: [Der; 2]) -> Result<CertificateAuthority, CaError> {
    let key = issuing_key().to_pem(KeyEncoding::Pkcs8);
    let root = write_certificates([&root]);
    CertificateAuthority::load(&write_certificates([&issuing]), key.expose(), Some(&root))
}

/// What we say and what OpenSSL says of a leaf below these CAs.
fn judge(
    issuing: Vec<Vec<u8>>,
    root: Vec<Vec<u8>>,
) -> (Result<(), Verdict>, Result<String, String>) {
    let ca = load(forge(issuing, root)).unwrap();
    let issued = ca
        .sign(&server(), key().public_key(), serial(3), NOW)
        .unwrap();
    let verdict = issued
        .chain
        .verify_path(&issued.anchors, LeafUsage::Server, NOW);
    let said = openssl_says(&issued.chain, &issued.anchors, NOW);
    (verdict.map(drop), said)
}

fn plain() -> Vec<Vec<u8>> {
    tbs::ca_extensions(None, &[])
}

fn with(more: Vec<u8>) -> Vec<Vec<u8>> {
    let mut extensions = plain();
    extensions.push(more);
    extensions
}

fn refusal(verdict: Result<(), Verdict>) -> Defect {
    match verdict {
        Err(Verdict::Defect(defect)) => defect,
        other => panic!("{other:?}"),
    }
}

fn purposes(purpose: &[u8]) -> Vec<u8> {
    let value = der::sequence(&[&der::oid(purpose)]);
    extension(oid::EXTENDED_KEY_USAGE, Criticality::Plain, &value)
}

#[test]
fn the_extended_key_usage_of_every_ca_must_have_the_purpose_root_included() {
    for (issuing, root) in [
        (with(purposes(oid::CLIENT_AUTH)), plain()),
        (plain(), with(purposes(oid::CLIENT_AUTH))),
        // anyExtendedKeyUsage is not serverAuth to OpenSSL.
        (plain(), with(purposes(&[0x55, 29, 37, 0]))),
    ] {
        let (verdict, said) = judge(issuing, root);
        let said = said.unwrap_err();
        assert!(said.contains("purpose"), "{said}");
        let is_named = match verdict {
            Err(Verdict::Defect(Defect::Purpose { purpose, .. })) => purpose == "serverAuth",
            // webpki's own words, of an issuing CA.
            Err(Verdict::WrongUsage { .. }) => true,
            other => panic!("{other:?}"),
        };
        assert!(is_named);
    }
    let (verdict, said) = judge(
        with(purposes(oid::SERVER_AUTH)),
        with(purposes(oid::SERVER_AUTH)),
    );
    verdict.unwrap();
    said.unwrap();
}

#[test]
fn an_anchor_with_an_unknown_critical_extension_is_refused_by_name() {
    let unknown: &[u8] = &[0x2a, 3, 4];
    let identifier = root_key().public_key().key_identifier();
    let critical_aki = der::sequence(&[&der::element(der::implicit(0), &[&identifier])]);
    for (identifier, value, named) in [
        (unknown, der::NULL.to_vec(), "1.2.3.4"),
        (
            oid::AUTHORITY_INFO_ACCESS,
            der::sequence(&[]),
            "authorityInfoAccess",
        ),
        (
            oid::AUTHORITY_KEY_IDENTIFIER,
            critical_aki,
            "authorityKeyIdentifier",
        ),
    ] {
        let mut root = plain();
        root.push(extension(identifier, Criticality::Critical, &value));
        let (own, above) = (issuing_key(), root_key());
        let certificates = [Forged::ca("Issuing", own, ("Root", above)).sign(), {
            let mut forged = Forged::ca("Root", above, ("Root", above)).identified(None, None);
            forged.extensions = root;
            forged.sign()
        }];
        let ca = load(certificates).unwrap();
        let issued = ca
            .sign(&server(), key().public_key(), serial(3), NOW)
            .unwrap();
        let verdict = issued
            .chain
            .verify_path(&issued.anchors, LeafUsage::Server, NOW);
        let said = openssl_says(&issued.chain, &issued.anchors, NOW);
        assert!(said.unwrap_err().contains("unhandled critical extension"));
        let Defect::CriticalExtension {
            certificate,
            extension,
        } = refusal(verdict.map(drop))
        else {
            panic!("another reason")
        };
        assert_eq!((&*certificate, &*extension), ("CN=Root", named));
    }
}

#[test]
fn a_root_without_key_cert_sign_is_refused_as_soon_as_it_is_read() {
    let usage = extension(
        oid::KEY_USAGE,
        Criticality::Critical,
        &der::named_bits(tbs::CRL_SIGN),
    );
    let constraints = der::sequence(&[der::TRUE]);
    let constraints = extension(oid::BASIC_CONSTRAINTS, Criticality::Critical, &constraints);
    let error = load(forge(plain(), vec![usage, constraints])).unwrap_err();
    let CaError::Refused(Defect::NoCertSign { certificate }) = &error else {
        panic!("{error}")
    };
    assert_eq!(certificate, "CN=Root");
}

#[test]
fn policies_are_accepted_unless_one_is_required_that_the_leaf_lacks() {
    let policy = |policy: &[u8]| der::sequence(&[&der::sequence(&[&der::oid(policy)])]);
    let critical = |identifier, value: &[u8]| extension(identifier, Criticality::Critical, value);
    let constraints = |number, skip: u8| {
        let skip = der::element(der::implicit(number), &[&[skip]]);
        critical(oid::POLICY_CONSTRAINTS, &der::sequence(&[&skip]))
    };
    let any: &[u8] = &[0x55, 29, 32, 0];
    let own: &[u8] = &[0x2a, 3, 4];
    for fine in [
        critical(oid::CERTIFICATE_POLICIES, &policy(any)),
        critical(oid::CERTIFICATE_POLICIES, &policy(own)),
        critical(oid::INHIBIT_ANY_POLICY, &der::unsigned(&[0])),
        // inhibitPolicyMapping, and a requirement that begins further below.
        constraints(1, 0),
        constraints(0, 3),
    ] {
        for (issuing, root) in [(with(fine.clone()), plain()), (plain(), with(fine.clone()))] {
            let (verdict, said) = judge(issuing, root);
            said.unwrap();
            verdict.unwrap();
        }
    }
    // A root is not part of the path.
    let (verdict, said) = judge(plain(), with(constraints(0, 0)));
    said.unwrap();
    verdict.unwrap();
    let (verdict, said) = judge(with(constraints(0, 0)), plain());
    said.unwrap();
    let error = refusal(verdict);
    let text = error.to_string();
    assert!(matches!(error, Defect::PolicyRequired { .. }), "{text}");
    for named in ["policyConstraints", "CN=Issuing", "Go and Java", "OpenSSL"] {
        assert!(text.contains(named), "{text}");
    }
}

/// `nameConstraints` with one permitted subtree.
fn permitted(base: &[u8]) -> Vec<u8> {
    let value = der::sequence(&[&der::element(der::explicit(0), &[&der::sequence(&[base])])]);
    extension(oid::NAME_CONSTRAINTS, Criticality::Critical, &value)
}

#[test]
fn name_constraints_are_obeyed_where_webpki_cannot_follow() {
    let any = der::sequence(&[&der::sequence(&[&der::oid(&[0x55, 29, 32, 0])])]);
    let any = extension(oid::CERTIFICATE_POLICIES, Criticality::Critical, &any);
    let dns = |name: &str| permitted(&der::element(der::implicit(2), &[name.as_bytes()]));
    let directory = |name: &str| {
        let name = tbs::name(Some(name), &crate::pki::profile::Subject::default());
        permitted(&der::element(der::explicit(4), &[&name]))
    };
    for (constraints, is_allowed) in [
        (dns(""), true),
        (dns("example.org"), false),
        (directory("ledger.treasury.svc"), true),
        (directory("other"), false),
    ] {
        let mut issuing = plain();
        issuing.extend([any.clone(), constraints]);
        let ca = load(forge(issuing, plain())).unwrap();
        let result = ca.sign(&server(), key().public_key(), serial(3), NOW);
        match result {
            Ok(issued) => {
                assert!(is_allowed);
                openssl_says(&issued.chain, &issued.anchors, NOW).unwrap();
            }
            Err(error) => {
                let text = crate::causes::chain(&error);
                assert!(!is_allowed, "{text}");
                assert!(text.contains("CN=Issuing"), "{text}");
            }
        }
    }
}

/// A root and an issuing CA made by `openssl`: how the root's key is made, and how it signs.
fn by_openssl(root: &str, sign: &str) -> Result<CertificateAuthority, CaError> {
    let directory = tempfile::tempdir().unwrap();
    let run = |line: &str| {
        let line = line.replace('@', directory.path().to_str().unwrap());
        let arguments: Vec<&str> = line.split_whitespace().collect();
        openssl(&arguments, "").unwrap_or_else(|error| panic!("{line}: {error}"))
    };
    std::fs::write(
        directory.path().join("ext"),
        "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n\
         subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n",
    )
    .unwrap();
    run(&format!("genpkey -out @/root.key {root}"));
    run(&format!(
        "req -x509 -new -key @/root.key -subj /CN=Root -days 3650 -out @/root.crt \
         -addext keyUsage=critical,keyCertSign {sign}"
    ));
    run("genpkey -out @/ca.key -algorithm EC -pkeyopt ec_paramgen_curve:P-256");
    run("req -new -key @/ca.key -subj /CN=Issuing -out @/ca.csr");
    run(&format!(
        "x509 -req -in @/ca.csr -CA @/root.crt -CAkey @/root.key -days 3650 -extfile @/ext \
         -set_serial 7 -out @/ca.crt {sign}"
    ));
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
    CertificateAuthority::load(&read("ca.crt"), &read("ca.key"), Some(&read("root.crt")))
}

#[test]
fn a_root_of_every_algorithm_that_openssl_accepts_is_accepted() {
    let ec = |curve: &str| format!("-algorithm EC -pkeyopt ec_paramgen_curve:{curve}");
    let rsa = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048".to_owned();
    let pss = "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048".to_owned();
    let salted =
        |length| format!("-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:{length}");
    for (root, sign) in [
        (ec("P-521"), "-sha512".to_owned()),
        (ec("P-521"), "-sha256".to_owned()),
        (ec("P-521"), "-sha384".to_owned()),
        (ec("P-384"), "-sha512".to_owned()),
        (ec("P-256"), "-sha512".to_owned()),
        (ec("P-384"), "-sha256".to_owned()),
        (rsa.clone(), "-sha512".to_owned()),
        (rsa.clone(), salted(32)),
        (rsa.clone(), salted(20)),
        (pss.clone(), "-sha256".to_owned()),
        (pss.clone(), salted(32)),
        (pss, "-sha384".to_owned()),
        (
            "-algorithm RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:3".to_owned(),
            "-sha256".to_owned(),
        ),
        ("-algorithm ED25519".to_owned(), String::new()),
    ] {
        let ca = by_openssl(&root, &sign).unwrap_or_else(|error| panic!("{root} {sign}: {error}"));
        let now = ca.facts().not_before;
        let issued = ca
            .sign(&server(), key().public_key(), serial(3), now)
            .unwrap();
        let verdict = issued
            .chain
            .verify_path(&issued.anchors, LeafUsage::Server, now);
        verdict.unwrap_or_else(|error| panic!("{root} {sign}: {error}"));
        // A signature that was changed is refused.
        let [issuing] = issued.chain.intermediates() else {
            panic!("an issuing CA is served")
        };
        let mut changed = issuing.to_vec();
        let place = changed.len() - 9;
        changed[place] ^= 1;
        let changed = vec![issued.chain.leaf().clone(), changed.into()];
        let changed = CertificateChain::from_certificates(changed).unwrap();
        let verdict = changed.verify_path(&issued.anchors, LeafUsage::Server, now);
        assert!(verdict.is_err(), "{root} {sign}");
    }
}

#[test]
fn a_parent_that_is_there_and_cannot_be_used_is_refused_by_the_true_reason() {
    let rsa = |bits| format!("-algorithm RSA -pkeyopt rsa_keygen_bits:{bits}");
    for (root, sign, named) in [
        (rsa(2048), "-sha1", "RSA with SHA-1"),
        (rsa(1024), "-sha256", "an RSA key of 1024 bits"),
        (
            "-algorithm EC -pkeyopt ec_paramgen_curve:P-256".to_owned(),
            "-sha1",
            "ECDSA with SHA-1",
        ),
        ("-algorithm ED448".to_owned(), "", "Ed448"),
        (
            "-algorithm EC -pkeyopt ec_paramgen_curve:brainpoolP256r1".to_owned(),
            "-sha256",
            "brainpoolP256r1",
        ),
        (
            "-algorithm EC -pkeyopt ec_paramgen_curve:secp256k1".to_owned(),
            "-sha256",
            "secp256k1",
        ),
    ] {
        let error = by_openssl(&root, sign).unwrap_err();
        let text = crate::causes::chain(&error);
        assert!(
            matches!(error, CaError::Refused(_)),
            "{root} {sign}: {text}"
        );
        assert!(text.contains(named) && text.contains("CN=Root"), "{text}");
        assert!(!text.contains("add it"), "{text}");
    }
}
