//! What is kept of a PgBouncer between two looks: what says that a settled one is still as it was, by
//! which its pods are looked at, and by which other objects concern it. Everything else is a tenant's
//! to fill, with up to a megabyte for each object, and is read when it is needed.

use std::collections::BTreeMap;

use kube::ResourceExt;

use super::around::number;
use crate::api::PgBouncer;
use crate::api::annotations::{OWN_PREFIX, SETTLED};
use crate::api::pgbouncer::{ConnectionPool, PgBouncerSpec};
use crate::api::tls::CertificateSpec;
use crate::blueprint::bounds::{self, NAME_MAX};

/// Stands for labels and annotations that are not kept. No object of an API server has it: names of
/// annotations have no blanks.
const OTHERS: &str = "all others";
/// Longest annotation of ours that is kept, in bytes: a note of `SETTLED` has a tenth of it, a list of
/// maintenance windows may have some more.
const ANNOTATION_MAX: usize = 4_096;

/// Takes off a PgBouncer what is not kept.
pub fn keep(bouncer: &mut PgBouncer) {
    let others = others(bouncer);
    let mut kept = BTreeMap::from([(OTHERS.to_owned(), format!("{others:016x}"))]);
    let own = std::mem::take(bouncer.annotations_mut());
    kept.extend(own.into_iter().filter(|(key, text)| is_kept(key, text)));
    bouncer.metadata.annotations = Some(kept);
    bouncer.metadata.labels = None;
    keep_spec(&mut bouncer.spec);
}

/// A number for the labels and annotations that are not kept: the same of the object and of its copy.
pub(super) fn others(bouncer: &PgBouncer) -> u64 {
    let kept = bouncer.annotations().get(OTHERS);
    if let Some(number) = kept.and_then(|text| u64::from_str_radix(text, 16).ok()) {
        return number;
    }
    let annotations = bouncer.annotations().iter();
    let annotations: Vec<_> = annotations
        .filter(|(key, text)| *key != SETTLED && !is_kept(key, text))
        .collect();
    number(&(bouncer.labels(), annotations))
}

/// The annotations that are kept, without the note of the last look.
pub(super) fn own(bouncer: &PgBouncer) -> Vec<(&String, &String)> {
    let all = bouncer.annotations().iter();
    all.filter(|(key, text)| *key != SETTLED && is_kept(key, text))
        .collect()
}

fn is_kept(key: &str, text: &str) -> bool {
    key.starts_with(OWN_PREFIX) && text.len() <= ANNOTATION_MAX
}

fn keep_spec(spec: &mut PgBouncerSpec) {
    // One that is out of bounds is not settled: it is read at each look.
    let is_within = bounds::check(spec).is_ok();
    spec.pod_template = None;
    spec.init = None;
    spec.monitor = None;
    spec.service_templates = Vec::new();
    spec.database.database_ref.parameters = None;
    spec.connection_pool = spec.connection_pool.take().map(|pool| ConnectionPool {
        port: pool.port,
        ..ConnectionPool::default()
    });
    if let Some(custom) = &mut spec.configuration {
        custom.inline = BTreeMap::default();
    }
    if let Some(tls) = &mut spec.tls {
        if !is_within {
            tls.issuer_ref = None;
            tls.certificates = Vec::new();
        }
        for entry in &mut tls.certificates {
            *entry = CertificateSpec {
                alias: std::mem::take(&mut entry.alias),
                issuer_ref: entry.issuer_ref.take(),
                secret_name: entry.secret_name.take(),
                ..CertificateSpec::default()
            };
        }
    }
    // No object has a longer name, so none is missed.
    let custom = spec.configuration.as_mut();
    let names = [
        Some(&mut spec.version),
        Some(&mut spec.database.database_name),
        Some(&mut spec.database.database_ref.name),
        Some(&mut spec.database.database_ref.namespace),
        spec.auth_secret.as_mut().map(|secret| &mut secret.name),
        spec.config_secret.as_mut().map(|secret| &mut secret.name),
        custom.and_then(|custom| custom.secret_name.as_mut()),
    ];
    for name in names
        .into_iter()
        .flatten()
        .filter(|name| name.len() > NAME_MAX)
    {
        *name = String::new();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::annotations::CLASS;
    use crate::blueprint::testing::tls_bouncer;
    use crate::provisioner::memory::Ask;

    /// What a tenant fills.
    fn filled() -> PgBouncer {
        let long = "x".repeat(200_000);
        let mut bouncer = tls_bouncer("billing");
        let annotations = bouncer.annotations_mut();
        annotations.insert(
            "kubectl.kubernetes.io/last-applied-configuration".into(),
            long.clone(),
        );
        annotations.insert("bouncert.dev/nonsense".into(), long.clone());
        annotations.insert(CLASS.into(), "blue".into());
        for n in 0..1_000 {
            bouncer
                .labels_mut()
                .insert(format!("team/{n}"), "books".into());
        }
        let spec = &mut bouncer.spec;
        spec.pod_template = Some(json!({ "spec": { "x": long } }));
        spec.monitor = Some(json!({ "x": long }));
        spec.init = Some(json!({ "x": long }));
        spec.database.database_ref.parameters = Some(json!({ "x": long }));
        spec.version.clone_from(&long);
        let custom = spec.configuration.get_or_insert_default();
        custom.inline.insert("pgbouncer.ini".into(), long.clone());
        custom.secret_name = Some("custom".into());
        let tls = spec.tls.get_or_insert_default();
        let entry = CertificateSpec {
            alias: "server".into(),
            dns_names: vec![long; 3],
            ..CertificateSpec::default()
        };
        tls.certificates = vec![entry; 5];
        bouncer
    }

    #[test]
    fn a_copy_is_small_whatever_a_tenant_has_filled_the_object_with() {
        let mut copy = filled();
        keep(&mut copy);
        let size = serde_json::to_vec(&copy).unwrap().len();
        assert!(size < 2_048, "{size} bytes");
        assert_eq!(crate::api::annotations::class_of(&copy), "blue");
        let custom = copy.spec.configuration.unwrap_or_default();
        assert_eq!(custom.secret_name.as_deref(), Some("custom"));
    }

    #[test]
    fn a_copy_asks_for_what_its_object_asks_for_and_tells_every_change() {
        let ask = |bouncer: &PgBouncer| {
            let mut copy = bouncer.clone();
            keep(&mut copy);
            let ask = Ask::of(bouncer);
            assert_eq!(Ask::of(&copy), ask);
            ask
        };
        let plain = filled();
        let change = |key: &str, text: &str| {
            let mut other = plain.clone();
            other.annotations_mut().insert(key.into(), text.into());
            ask(&other)
        };
        let first = ask(&plain);
        assert_eq!(change(SETTLED, "0000000000000007/d1/mark"), first);
        // Others' annotations go along to the AppBinding.
        for (key, text) in [
            ("example.com/team", "books"),
            (CLASS, "green"),
            ("bouncert.dev/nonsense", &"y".repeat(200_000)),
        ] {
            assert_ne!(change(key, text), first, "{key}");
        }
        let mut other = plain.clone();
        other.labels_mut().insert("team/1".into(), "cash".into());
        assert_ne!(ask(&other), first);
    }

    #[test]
    fn names_of_what_concerns_a_pgbouncer_are_kept() {
        let bouncer = tls_bouncer("billing");
        let mut copy = bouncer.clone();
        keep(&mut copy);
        assert_eq!(copy.spec.version, bouncer.spec.version);
        assert_eq!(
            copy.spec.database.database_ref,
            bouncer.spec.database.database_ref
        );
        let issuer = |bouncer: &PgBouncer| bouncer.spec.tls.clone().unwrap_or_default().issuer_ref;
        assert_eq!(issuer(&copy), issuer(&bouncer));
        assert_eq!(copy.spec.ssl_mode, bouncer.spec.ssl_mode);
    }
}
