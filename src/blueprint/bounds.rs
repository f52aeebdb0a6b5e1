//! Bounds of what a specification may ask for, with a reason for each number. The API server admits
//! what KubeDB's does, so the daemon refuses at run time what would use up its memory or its time.

use std::fmt::Display;

use crate::api::pgbouncer::PgBouncerSpec;
use crate::api::tls::{CertificateSpec, IssuerRef, X509Subject};
use crate::names::{OBJECT_NAME_MAX, is_object_name};
use crate::printable::quoted;

/// Most replicas: each is a step of a request's plan, and a plan of a thousand steps still fits into
/// the object that keeps it.
pub const REPLICAS_MAX: i32 = 1_000;
/// Most entries of `spec.tls.certificates`: there are three aliases; others are kept and ignored.
pub const CERTIFICATES_MAX: usize = 16;
/// Most names of one kind in a certificate: it is sent in every handshake, and 100 names are 4 kB.
pub const NAMES_MAX: usize = 100;
/// Most values of one part of a subject.
pub const SUBJECT_MAX: usize = 16;
/// Longest DNS name, and longest name of a Kubernetes object.
pub const NAME_MAX: usize = 253;
/// Longest value of a subject; X.509 itself stops at 64 for most.
pub const SUBJECT_TEXT_MAX: usize = 256;
/// Longest URI.
pub const URI_MAX: usize = 2_048;
/// Longest e-mail address, by RFC 5321.
pub const EMAIL_MAX: usize = 320;
/// Longest duration as text.
pub const DURATION_TEXT_MAX: usize = 128;
/// Most Service templates: there are three aliases.
pub const SERVICE_TEMPLATES_MAX: usize = 16;
/// Longest inline configuration, in bytes: it becomes a Secret of at most 1 MiB, with a user's own beside
/// it.
pub const INLINE_MAX: usize = 256 * 1_024;

/// A number, a list or a text outside its bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {is}: write {allowed}")]
pub struct OutOfBounds {
    /// Which field.
    pub field: String,
    /// What is there, as a number or a length.
    pub is: String,
    /// What may be there.
    pub allowed: String,
}

/// Checks what a PgBouncer asks for.
pub fn check(spec: &PgBouncerSpec) -> Result<(), OutOfBounds> {
    check_names(spec)?;
    let replicas = spec.replicas.unwrap_or(1);
    check_replicas("spec.replicas", i64::from(replicas))?;
    let port = spec.connection_pool.as_ref().and_then(|pool| pool.port);
    if let Some(port) = port.filter(|port| !(1..=65_535).contains(port)) {
        return Err(number(
            "spec.connectionPool.port",
            &port,
            "a port from 1 to 65535",
        ));
    }
    let templates = spec.service_templates.len();
    count("spec.serviceTemplates", templates, SERVICE_TEMPLATES_MAX)?;
    let inline = spec.configuration.iter().flat_map(|custom| &custom.inline);
    let inline = inline.fold(0_usize, |all, (key, text)| {
        all.saturating_add(key.len() + text.len())
    });
    if inline > INLINE_MAX {
        let allowed = format!("at most {INLINE_MAX} bytes");
        return Err(number(
            "spec.configuration.inline",
            &format!("{inline} bytes long"),
            &allowed,
        ));
    }
    if let Some(tls) = &spec.tls {
        check_tls(tls.issuer_ref.as_ref(), &tls.certificates)?;
    }
    Ok(())
}

/// Checks the names of objects that the daemon reads: each becomes a part of a path at the API server.
fn check_names(spec: &PgBouncerSpec) -> Result<(), OutOfBounds> {
    object_name("spec.version", &spec.version)?;
    let database = &spec.database.database_ref;
    object_name("spec.database.databaseRef.name", &database.name)?;
    let custom = spec.configuration.as_ref();
    let named = [
        (
            "spec.authSecret.name",
            spec.auth_secret.as_ref().map(|secret| &secret.name),
        ),
        (
            "spec.configuration.secretName",
            custom.and_then(|custom| custom.secret_name.as_ref()),
        ),
        (
            "spec.configSecret.name",
            spec.config_secret.as_ref().map(|secret| &secret.name),
        ),
    ];
    // An empty one is left to what reads it.
    let mut named = named
        .into_iter()
        .filter_map(|(field, name)| Some((field, name.filter(|name| !name.is_empty())?)));
    named.try_for_each(|(field, name)| object_name(field, name))
}

/// Checks a number of replicas, wherever it comes from.
pub fn check_replicas(field: &str, replicas: i64) -> Result<(), OutOfBounds> {
    if (0..=i64::from(REPLICAS_MAX)).contains(&replicas) {
        return Ok(());
    }
    Err(number(field, &replicas, &format!("0 to {REPLICAS_MAX}")))
}

/// Checks what a PgBouncer or a request asks for of certificates.
pub fn check_tls(
    issuer: Option<&IssuerRef>,
    certificates: &[CertificateSpec],
) -> Result<(), OutOfBounds> {
    check_issuer("spec.tls.issuerRef", issuer)?;
    count(
        "spec.tls.certificates",
        certificates.len(),
        CERTIFICATES_MAX,
    )?;
    certificates.iter().try_for_each(check_certificate)
}

fn check_certificate(entry: &CertificateSpec) -> Result<(), OutOfBounds> {
    text("spec.tls.certificates[].alias", &entry.alias, NAME_MAX)?;
    let at = format!("spec.tls.certificates[{}]", entry.alias);
    let field = |name: &str| format!("{at}.{name}");
    check_issuer(&field("issuerRef"), entry.issuer_ref.as_ref())?;
    // An empty one stands for the default.
    if let Some(name) = entry.secret_name.as_deref().filter(|name| !name.is_empty()) {
        object_name(&field("secretName"), name)?;
    }
    let one = [
        ("duration", &entry.duration, DURATION_TEXT_MAX),
        ("renewBefore", &entry.renew_before, DURATION_TEXT_MAX),
    ];
    for (name, value, most) in one {
        text(&field(name), value.as_deref().unwrap_or_default(), most)?;
    }
    let lists = [
        ("dnsNames", &entry.dns_names, NAME_MAX),
        ("ipAddresses", &entry.ip_addresses, NAME_MAX),
        ("uris", &entry.uris, URI_MAX),
        ("emailAddresses", &entry.email_addresses, EMAIL_MAX),
    ];
    for (name, values, most) in lists {
        texts(&field(name), values, (NAMES_MAX, most))?;
    }
    entry
        .subject
        .as_ref()
        .map_or(Ok(()), |subject| check_subject(&field("subject"), subject))
}

fn check_subject(at: &str, subject: &X509Subject) -> Result<(), OutOfBounds> {
    let lists = [
        ("organizations", &subject.organizations),
        ("countries", &subject.countries),
        ("organizationalUnits", &subject.organizational_units),
        ("localities", &subject.localities),
        ("provinces", &subject.provinces),
        ("streetAddresses", &subject.street_addresses),
        ("postalCodes", &subject.postal_codes),
    ];
    for (name, values) in lists {
        texts(
            &format!("{at}.{name}"),
            values,
            (SUBJECT_MAX, SUBJECT_TEXT_MAX),
        )?;
    }
    let serial = subject.serial_number.as_deref().unwrap_or_default();
    text(&format!("{at}.serialNumber"), serial, SUBJECT_TEXT_MAX)
}

fn check_issuer(at: &str, issuer: Option<&IssuerRef>) -> Result<(), OutOfBounds> {
    let Some(issuer) = issuer else {
        return Ok(());
    };
    object_name(&format!("{at}.name"), &issuer.name)?;
    text(&format!("{at}.kind"), &issuer.kind, NAME_MAX)?;
    let group = issuer.api_group.as_deref().unwrap_or_default();
    text(&format!("{at}.apiGroup"), group, NAME_MAX)
}

/// Checks the name of an object; a long one is not repeated.
fn object_name(at: &str, name: &str) -> Result<(), OutOfBounds> {
    text(at, name, NAME_MAX)?;
    if is_object_name(name) {
        return Ok(());
    }
    let allowed = format!(
        "the name of an object, of at most {OBJECT_NAME_MAX} letters a-z, digits, - and ., with a letter \
         or digit on both sides of each . and at both ends"
    );
    Err(number(at, &quoted(name), &allowed))
}

fn texts(at: &str, values: &[String], (most, longest): (usize, usize)) -> Result<(), OutOfBounds> {
    count(at, values.len(), most)?;
    values.iter().try_for_each(|value| text(at, value, longest))
}

fn text(at: &str, value: &str, longest: usize) -> Result<(), OutOfBounds> {
    if value.len() <= longest {
        return Ok(());
    }
    let is = format!("{} bytes long", value.len());
    Err(number(at, &is, &format!("at most {longest} bytes")))
}

fn count(at: &str, entries: usize, most: usize) -> Result<(), OutOfBounds> {
    if entries <= most {
        return Ok(());
    }
    Err(number(
        at,
        &format!("{entries} entries long"),
        &format!("at most {most} entries"),
    ))
}

fn number(field: &str, is: &dyn Display, allowed: &str) -> OutOfBounds {
    OutOfBounds {
        field: field.to_owned(),
        is: is.to_string(),
        allowed: allowed.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::pgbouncer::AuthSecret;
    use crate::blueprint::testing::tls_bouncer;

    fn refused(change: impl FnOnce(&mut PgBouncerSpec)) -> String {
        let mut spec = tls_bouncer("billing").spec;
        change(&mut spec);
        check(&spec).unwrap_err().to_string()
    }

    fn entry(change: impl FnOnce(&mut CertificateSpec)) -> CertificateSpec {
        let mut entry = CertificateSpec {
            alias: "server".to_owned(),
            ..CertificateSpec::default()
        };
        change(&mut entry);
        entry
    }

    #[test]
    fn what_people_write_is_within_the_bounds() {
        assert_eq!(check(&tls_bouncer("billing").spec), Ok(()));
        for replicas in [0, 1, REPLICAS_MAX] {
            let mut spec = tls_bouncer("billing").spec;
            spec.replicas = Some(replicas);
            assert_eq!(check(&spec), Ok(()));
        }
    }

    #[test]
    fn a_number_outside_its_bound_is_refused_with_the_bound() {
        for replicas in [i32::MAX, REPLICAS_MAX + 1, -1, i32::MIN] {
            let error = refused(|spec| spec.replicas = Some(replicas));
            assert_eq!(
                error,
                format!("spec.replicas is {replicas}: write 0 to 1000")
            );
        }
        for port in [0, -1, 65_536, i32::MAX] {
            let error =
                refused(|spec| spec.connection_pool.get_or_insert_default().port = Some(port));
            assert!(error.contains("65535"), "{error}");
        }
    }

    fn auth(name: &str) -> AuthSecret {
        serde_json::from_value(serde_json::json!({"name": name})).unwrap()
    }

    #[test]
    fn a_name_that_is_no_name_of_an_object_is_refused_with_its_field() {
        for name in [
            "../other/secrets/x",
            "a/b",
            "a%2fb",
            "a?b",
            "Upper",
            "a_b",
            "a..b",
            ".a",
            "a-",
        ] {
            let name = || name.to_owned();
            let errors = [
                refused(|spec| spec.version = name()),
                refused(|spec| spec.database.database_ref.name = name()),
                refused(|spec| spec.auth_secret = Some(auth(&name()))),
                refused(|spec| spec.config_secret.get_or_insert_default().name = name()),
                refused(|spec| {
                    spec.configuration.get_or_insert_default().secret_name = Some(name());
                }),
                refused(|spec| {
                    let tls = spec.tls.get_or_insert_default();
                    tls.issuer_ref.as_mut().unwrap().name = name();
                }),
                refused(|spec| {
                    let own = entry(|entry| entry.secret_name = Some(name()));
                    spec.tls.get_or_insert_default().certificates = vec![own];
                }),
                refused(|spec| {
                    let issuer = IssuerRef {
                        api_group: Some("step.sm".to_owned()),
                        kind: "StepIssuer".to_owned(),
                        name: name(),
                    };
                    let own = entry(|entry| entry.issuer_ref = Some(issuer));
                    spec.tls.get_or_insert_default().certificates = vec![own];
                }),
            ];
            let fields = [
                "spec.version",
                "spec.database.databaseRef.name",
                "spec.authSecret.name",
                "spec.configSecret.name",
                "spec.configuration.secretName",
                "spec.tls.issuerRef.name",
                "spec.tls.certificates[server].secretName",
                "spec.tls.certificates[server].issuerRef.name",
            ];
            for (error, field) in errors.iter().zip(fields) {
                let begin = format!("{field} is \"{}\": write the name", name());
                assert!(error.starts_with(&begin), "{error}");
            }
        }
        let mut spec = tls_bouncer("billing").spec;
        spec.auth_secret = Some(auth(""));
        spec.configuration.get_or_insert_default().secret_name = Some(String::new());
        assert_eq!(check(&spec), Ok(()));
    }

    #[test]
    fn every_list_and_every_text_of_a_certificate_is_bounded() {
        let many = vec!["x".to_owned(); 10_000];
        let long = "y".repeat(200_000);
        let certificates = [
            entry(|entry| entry.dns_names.clone_from(&many)),
            entry(|entry| entry.ip_addresses.clone_from(&many)),
            entry(|entry| entry.uris.clone_from(&many)),
            entry(|entry| entry.email_addresses.clone_from(&many)),
            entry(|entry| {
                entry
                    .subject
                    .get_or_insert_default()
                    .organizations
                    .clone_from(&many);
            }),
            entry(|entry| entry.subject.get_or_insert_default().localities = vec![long.clone()]),
            entry(|entry| entry.subject.get_or_insert_default().serial_number = Some(long.clone())),
            entry(|entry| entry.alias.clone_from(&long)),
            entry(|entry| entry.secret_name = Some(long.clone())),
            entry(|entry| entry.duration = Some(long.clone())),
            entry(|entry| entry.renew_before = Some(long.clone())),
            entry(|entry| entry.dns_names = vec![long.clone()]),
            entry(|entry| entry.uris = vec![long.clone()]),
            entry(|entry| entry.email_addresses = vec![long.clone()]),
            entry(|entry| {
                entry.issuer_ref = Some(IssuerRef {
                    api_group: None,
                    kind: "Issuer".to_owned(),
                    name: long.clone(),
                });
            }),
        ];
        for certificate in certificates {
            let error = refused(|spec| {
                spec.tls.get_or_insert_default().certificates = vec![certificate];
            });
            assert!(error.contains("at most") && error.len() < 300, "{error}");
        }
        let error = refused(|spec| {
            let tls = spec.tls.get_or_insert_default();
            tls.certificates = (0..100).map(|_| entry(|_| ())).collect();
        });
        assert!(
            error.contains("spec.tls.certificates is 100 entries long"),
            "{error}"
        );
        let error = refused(|spec| {
            let custom = spec.configuration.get_or_insert_default();
            custom
                .inline
                .insert("pgbouncer.ini".to_owned(), "z".repeat(INLINE_MAX + 1));
        });
        assert!(error.contains("spec.configuration.inline"), "{error}");
    }
}
