use super::*;
use crate::api::tls::IssuerRef;
use crate::pki::key::{KeyAlgorithm, KeyKind};
use crate::pki::profile::{LeafProfile, LeafUsage};

/// What a server certificate in the namespace `treasury` asks for.
pub(super) fn request() -> Request {
    let issuer = IssuerRef {
        api_group: None,
        kind: "Issuer".into(),
        name: "vault".into(),
    };
    let mut profile = LeafProfile::new(LeafUsage::ServerAndClient, "billing.treasury.svc");
    profile.dns_names = vec!["billing.treasury.svc".into(), "localhost".into()];
    profile.ip_addresses = vec![[127, 0, 0, 1].into()];
    Request::for_leaf(
        "treasury",
        "billing-server-cert",
        &issuer,
        &profile,
        KeyKind::EcdsaP256,
    )
}

fn policy(name: &str, spec: &str) -> String {
    let spec: String = spec.lines().flat_map(|line| ["  ", line, "\n"]).collect();
    format!(
        "---\napiVersion: policy.cert-manager.io/v1alpha1\nkind: CertificateRequestPolicy\n\
         metadata:\n  name: {name}\nspec:\n{spec}"
    )
}

fn policies(spec: &str) -> Policies {
    Policies::parse(&policy("house", spec)).unwrap()
}

/// Path and value of every violation.
fn denied(policies: &Policies, request: &Request) -> Vec<String> {
    match policies.review(request) {
        Verdict::Denied { violations } => violations
            .iter()
            .map(|v| format!("{} {}", v.path, v.value).trim_end().to_owned())
            .collect(),
        Verdict::Allowed { by } => panic!("allowed by {by}"),
    }
}

fn is_allowed(policies: &Policies, request: &Request) -> bool {
    matches!(policies.review(request), Verdict::Allowed { .. })
}

const EVERYTHING: &str = "\
selector: {issuerRef: {}}
allowed:
  commonName: {value: '*'}
  dnsNames: {values: ['*']}
  ipAddresses: {values: ['*']}
  usages: [digital signature, key encipherment, server auth, client auth]
";

#[test]
fn what_a_policy_leaves_out_may_not_be_asked_for() {
    let nothing = policies("selector: {issuerRef: {}}");
    assert_eq!(
        denied(&nothing, &request()),
        [
            "spec.allowed.commonName billing.treasury.svc",
            "spec.allowed.dnsNames billing.treasury.svc",
            "spec.allowed.dnsNames localhost",
            "spec.allowed.ipAddresses 127.0.0.1",
            "spec.allowed.usages digital signature",
            "spec.allowed.usages server auth",
            "spec.allowed.usages client auth",
        ]
    );
    assert!(is_allowed(&policies(EVERYTHING), &request()));
}

#[test]
fn every_value_is_held_against_patterns_and_validations() {
    let narrow = policies(
        "selector: {issuerRef: {}}
allowed:
  commonName: {value: '*.svc', required: true}
  dnsNames:
    values: ['*.svc']
    validations:
    - {rule: \"self.endsWith(cr.namespace + '.svc')\", message: stay at home}
  ipAddresses:
    validations: [{rule: \"self == '10.0.0.1'\"}]
  uris: {required: true, values: ['*']}
  usages: [digital signature, key encipherment, server auth, client auth]",
    );
    let mut request = request();
    request.dns_names.push("ledger.vault.svc".into());
    let Verdict::Denied { violations } = narrow.review(&request) else {
        panic!("allowed")
    };
    let told: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "policy house: spec.allowed.dnsNames.values: \"localhost\": is not allowed: the policy \
             allows *.svc",
            "policy house: spec.allowed.dnsNames.validations[0]: \"localhost\": stay at home",
            "policy house: spec.allowed.dnsNames.validations[0]: \"ledger.vault.svc\": stay at home",
            "policy house: spec.allowed.ipAddresses.validations[0]: \"127.0.0.1\": failed rule: \
             `self == '10.0.0.1'`",
            "policy house: spec.allowed.uris.required: is required, and not asked for",
        ]
    );
}

#[test]
fn every_attribute_of_the_subject_has_its_own_field() {
    let mut request = request();
    let subject = &mut request.subject;
    subject.organizations = vec!["Guild".into()];
    subject.organizational_units = vec!["Mint".into()];
    subject.countries = vec!["CH".into()];
    subject.localities = vec!["Bern".into()];
    subject.provinces = vec!["BE".into()];
    subject.street_addresses = vec!["Way 1".into()];
    subject.postal_codes = vec!["3000".into()];
    subject.serial_number = Some("77".into());
    request.uris = vec!["spiffe://treasury".into()];
    request.email_addresses = vec!["clerk@example.org".into()];
    request.is_ca = true;
    assert_eq!(
        denied(&policies(EVERYTHING), &request),
        [
            "spec.allowed.uris spiffe://treasury",
            "spec.allowed.emailAddresses clerk@example.org",
            "spec.allowed.subject.organizations Guild",
            "spec.allowed.subject.countries CH",
            "spec.allowed.subject.organizationalUnits Mint",
            "spec.allowed.subject.localities Bern",
            "spec.allowed.subject.provinces BE",
            "spec.allowed.subject.streetAddresses Way 1",
            "spec.allowed.subject.postalCodes 3000",
            "spec.allowed.subject.serialNumber 77",
            "spec.allowed.isCA true",
        ]
    );
    let all = format!(
        "{EVERYTHING}  isCA: true
  uris: {{values: ['spiffe://*']}}
  emailAddresses: {{values: ['*@example.org']}}
  subject:
    organizations: {{values: [Guild]}}
    organizationalUnits: {{values: [Mint]}}
    countries: {{values: [CH]}}
    localities: {{values: [Bern]}}
    provinces: {{values: [BE]}}
    streetAddresses: {{values: ['Way *']}}
    postalCodes: {{values: ['3*']}}
    serialNumber: {{value: '*7'}}"
    );
    assert!(is_allowed(&policies(&all), &request));
}

#[test]
fn lifetime_and_key_are_bounded_inclusively() {
    let bounded = policies(&format!(
        "{EVERYTHING}constraints:
  minDuration: 24h
  maxDuration: 720h
  privateKey: {{algorithm: ECDSA, minSize: 256, maxSize: 256}}"
    ));
    let mut request = request();
    for (hours, allowed) in [(23, false), (24, true), (720, true), (721, false)] {
        request.duration = Some(time::Duration::hours(hours));
        assert_eq!(is_allowed(&bounded, &request), allowed, "{hours} h");
    }
    request.key = KeyKind::Rsa { bits: 3072 };
    assert_eq!(
        denied(&bounded, &request),
        [
            "spec.constraints.maxDuration 721h0m0s",
            "spec.constraints.privateKey.algorithm RSA",
            "spec.constraints.privateKey.maxSize 3072",
        ]
    );
    request.duration = None;
    request.key = KeyKind::Ed25519;
    assert_eq!(
        denied(&bounded, &request),
        [
            "spec.constraints.minDuration",
            "spec.constraints.maxDuration",
            "spec.constraints.privateKey.algorithm Ed25519",
            "spec.constraints.privateKey.minSize no size",
        ]
    );
}

#[test]
fn a_policy_is_for_the_issuers_and_namespaces_that_it_selects() {
    for (selector, selects) in [
        ("{issuerRef: {}}", true),
        ("{namespace: {}}", true),
        (
            "{issuerRef: {name: 'v*', kind: Issuer, group: cert-manager.io}}",
            true,
        ),
        ("{issuerRef: {name: other}}", false),
        ("{issuerRef: {kind: ClusterIssuer}}", false),
        ("{issuerRef: {group: example.org}}", false),
        ("{namespace: {matchNames: [shop, 'trea*']}}", true),
        ("{namespace: {matchNames: [shop]}}", false),
        ("{namespace: {matchLabels: {stage: gold}}}", true),
        ("{namespace: {matchLabels: {stage: lead}}}", false),
        (
            "{namespace: {matchNames: [shop], matchLabels: {stage: gold}}}",
            false,
        ),
    ] {
        let policies = policies(&EVERYTHING.replace(
            "selector: {issuerRef: {}}",
            &format!("selector: {selector}"),
        ));
        let mut request = request();
        request.namespace_labels = [("stage".to_owned(), "gold".to_owned())].into();
        assert_eq!(is_allowed(&policies, &request), selects, "{selector}");
        assert_eq!(policies.selecting(&request).len(), usize::from(selects));
        assert_eq!(
            policies.reads_namespace_labels(),
            selector.contains("matchLabels")
        );
    }
}

#[test]
fn a_field_that_is_null_is_one_that_is_not_there() {
    let nulls = policies(
        "selector: {issuerRef: {name: null}, namespace: null}
allowed:
  commonName: {value: '*', required: null, validations: null}
  dnsNames: {values: ['*'], required: null}
  ipAddresses: {values: ['*']}
  uris: null
  usages: [digital signature, key encipherment, server auth, client auth]
  subject: {organizations: null}
constraints: {minDuration: null, privateKey: {minSize: null}}
plugins: null",
    );
    assert!(is_allowed(&nulls, &request()));
    let mut more = request();
    more.uris = vec!["spiffe://a/b".into()];
    assert!(!is_allowed(&nulls, &more));
    // The bounds themselves are allowed.
    policies(
        "selector: {namespace: {}}\nconstraints: {minDuration: 0s, privateKey: {minSize: 0, maxSize: 8192}}",
    );
    policies("selector: {issuerRef: {}}\nallowed: {dnsNames: {required: true, values: []}}");
}

#[test]
fn what_no_policy_selects_is_denied_and_the_answer_says_so() {
    let elsewhere = policies("selector: {issuerRef: {name: other}}");
    let Verdict::Denied { violations } = elsewhere.review(&request()) else {
        panic!("allowed")
    };
    assert_eq!(
        violations[0].to_string(),
        "policy house: spec.selector: \"Issuer vault (cert-manager.io)\": no policy selects this \
         issuer in namespace treasury"
    );
    assert!(!is_allowed(&Policies::default(), &request()));
}

#[test]
fn one_policy_that_allows_is_enough_and_else_all_say_why_not() {
    let closed = policy("closed", "selector: {issuerRef: {}}");
    let also = policy("also-closed", "selector: {issuerRef: {}}");
    let open = policy("open", EVERYTHING);
    let both = Policies::parse(&format!("{closed}{open}")).unwrap();
    assert_eq!(
        both.review(&request()),
        Verdict::Allowed { by: "open".into() }
    );
    let neither = Policies::parse(&format!("{closed}{also}")).unwrap();
    assert_eq!(denied(&neither, &request()).len(), 14);
}

#[test]
fn policies_that_cannot_be_used_are_refused_by_name() {
    for (spec, words) in [
        (
            "selector: {issuerRef: {}}\nplugins: {rego: {values: {}}}",
            "spec.plugins names rego",
        ),
        (
            "selector: {issuerRef: {}}\nallow: {}",
            "unknown field `allow`",
        ),
        ("allowed: {}", "missing field `selector`"),
        (
            "selector: {issuerRef: {}}\nallowed: {usages: [dancing]}",
            "\"dancing\" is no usage",
        ),
        (
            "selector: {issuerRef: {}}\nallowed: {uris: {validations: [{rule: 'self =='}]}}",
            "spec.allowed.uris.validations[0]: rule `self ==` cannot be compiled",
        ),
        (
            "selector: {issuerRef: {}}\nconstraints: {minDuration: 2h, maxDuration: 1h}",
            "spec.constraints.maxDuration: 1h0m0s is less than minDuration 2h0m0s",
        ),
        (
            "selector: {issuerRef: {}}\nconstraints: {privateKey: {algorithm: Ed25519, minSize: 2}}",
            "Ed25519 keys have no size",
        ),
        (
            "selector: {issuerRef: {}}\nconstraints: {privateKey: {minSize: 3, maxSize: 2}}",
            "2 is less than minSize 3",
        ),
        (
            "selector: {issuerRef: {}}\nconstraints: {maxDuration: 90d}",
            "unknown unit",
        ),
        ("selector: {}", "spec.selector: it selects nothing"),
        ("selector: null", "missing field `selector`"),
        (
            "selector: {namespace: {matchLabels: {stage: -gold}}}",
            "spec.selector.namespace.matchLabels",
        ),
        (
            "selector: {issuerRef: {}}\nallowed: {dnsNames: {required: true}}",
            "spec.allowed.dnsNames: it is required, and nothing says what it may be: write values",
        ),
        (
            "selector: {issuerRef: {}}\nallowed: {subject: {serialNumber: {required: true}}}",
            "spec.allowed.subject.serialNumber: it is required, and nothing says what it may be: \
             write value or",
        ),
        (
            "selector: {issuerRef: {}}\nconstraints: {privateKey: {minSize: -1}}",
            "spec.constraints.privateKey.minSize: -1 is outside the limits",
        ),
        (
            "selector: {issuerRef: {}}\nconstraints: {privateKey: {maxSize: 9000}}",
            "spec.constraints.privateKey.maxSize: 9000 is outside the limits",
        ),
        (
            "selector: {issuerRef: {}}\nconstraints: {minDuration: -1h}",
            "spec.constraints.minDuration: -1h0m0s is negative",
        ),
        (
            "selector: {issuerRef: {}}\nconstraints: {maxDuration: -1ns}",
            "spec.constraints.maxDuration: -1ns is negative",
        ),
        (
            "selector: {issuerRef: {}}\nallowed: {uris: {validations: [{rule: 'cr.username == self'}]}}",
            "spec.allowed.uris.validations[0]: rule `cr.username == self` cannot be compiled: \
             cr.username is not supported",
        ),
    ] {
        let error = Policies::parse(&policy("house", spec))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("policy house") && error.contains(words),
            "{error}"
        );
    }
    let twice = policy("house", EVERYTHING).repeat(2);
    assert!(matches!(
        Policies::parse(&twice),
        Err(PolicyError::Duplicate { .. })
    ));
    for (text, words) in [
        ("kind: Issuer", "a document is a Issuer of nothing"),
        ("{", "not YAML"),
    ] {
        let error = Policies::parse(text).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(Policies::parse("").unwrap().is_empty());
}

#[test]
fn a_policy_of_the_cluster_that_cannot_be_used_allows_nothing_where_it_selects() {
    let read = |spec: serde_json::Value| -> CertificateRequestPolicy {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "policy.cert-manager.io/v1alpha1", "kind": "CertificateRequestPolicy",
            "metadata": {"name": "clever"}, "spec": spec,
        }))
        .unwrap()
    };
    let plugin = read(serde_json::json!({
        "selector": {"namespace": {"matchNames": ["treasury"]}}, "plugins": {"rego": {}},
    }));
    let cluster = Policies::of_cluster(&[plugin]);
    let Verdict::Denied { violations } = cluster.review(&request()) else {
        panic!("allowed")
    };
    assert!(violations[0].message.contains("spec.plugins names rego"));
    let mut elsewhere = request();
    elsewhere.namespace = "shop".into();
    assert!(cluster.selecting(&elsewhere).is_empty());
    let unknown = read(serde_json::json!({"selector": {"moon": "full"}}));
    let cluster = Policies::of_cluster(&[unknown]);
    assert_eq!(
        cluster.selecting(&elsewhere),
        ["clever"],
        "what it is for is not known"
    );
}

#[test]
fn what_our_certificates_never_carry_matters_only_where_it_is_required() {
    let optional = format!("{EVERYTHING}  otherNames: [{{oid: 1.2.3, values: ['*']}}]");
    assert!(is_allowed(&policies(&optional), &request()));
    let required = format!("{EVERYTHING}  otherNames: [{{oid: 1.2.3, required: true}}]");
    assert_eq!(
        denied(&policies(&required), &request()),
        ["spec.allowed.otherNames[1.2.3].required"]
    );
}

#[test]
fn a_certificate_request_is_judged_by_what_its_csr_proves() {
    use base64::Engine;
    let key = crate::pki::key::PrivateKey::generate(KeyAlgorithm::EcdsaP384).unwrap();
    let mut profile = LeafProfile::new(LeafUsage::Client, "clerk");
    profile.dns_names = vec!["desk.example.org".into()];
    profile.ip_addresses = vec![[10, 1, 2, 3].into(), "fd00::7".parse().unwrap()];
    profile.uris = vec!["spiffe://treasury/clerk".into()];
    profile.email_addresses = vec!["clerk@example.org".into()];
    profile.subject.organizations = vec!["Guild".into()];
    profile.subject.serial_number = Some("77".into());
    let pem = crate::pki::csr::request(&profile, &key).unwrap();
    let asked = |pem: &str| -> crate::api::certmanager::CertificateRequest {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "cert-manager.io/v1", "kind": "CertificateRequest",
            "metadata": {"name": "desk-1", "namespace": "shop"},
            "spec": {
                "request": base64::engine::general_purpose::STANDARD.encode(pem),
                "issuerRef": {"name": "first"}, "duration": "36h", "usages": ["client auth"],
            },
        }))
        .unwrap()
    };
    let request = Request::try_from(&asked(&pem)).unwrap();
    assert_eq!(request.common_name.as_deref(), Some("clerk"));
    assert_eq!(request.dns_names, profile.dns_names);
    assert_eq!(request.ip_addresses, profile.ip_addresses);
    assert_eq!(request.uris, profile.uris);
    assert_eq!(request.email_addresses, profile.email_addresses);
    assert_eq!(request.subject, profile.subject);
    assert_eq!(request.key, KeyKind::EcdsaP384);
    assert_eq!(request.duration, Some(time::Duration::hours(36)));
    assert_eq!(
        (request.namespace.as_str(), request.name.as_str()),
        ("shop", "desk-1")
    );
    assert_eq!(
        (request.issuer.kind.as_str(), request.issuer.group()),
        ("Issuer", "cert-manager.io")
    );
    assert!(matches!(
        Request::try_from(&asked("none")),
        Err(RequestError::Csr(_))
    ));
}

mod hostile {
    use proptest::prelude::*;

    use super::super::Policies;

    proptest! {
        #[test]
        fn no_document_makes_the_reader_panic(text in "[a-z:{}\\[\\] \n*'\"&-]{0,200}") {
            let _ = Policies::parse(&text);
        }

        #[test]
        fn no_rule_makes_the_compiler_panic(rule in "[a-z0-9().+*!&|=<>'\" \\[\\]{},?:-]{0,120}") {
            let spec = serde_json::json!({
                "apiVersion": "policy.cert-manager.io/v1alpha1", "kind": "CertificateRequestPolicy",
                "metadata": {"name": "odd"},
                "spec": {"selector": {"issuerRef": {}}, "allowed": {"uris": {"validations": [{"rule": rule}]}}},
            });
            if let Ok(policies) = Policies::parse(&spec.to_string()) {
                let mut request = super::request();
                request.uris = vec!["spiffe://treasury".into()];
                let _ = policies.review(&request);
            }
        }
    }
}
