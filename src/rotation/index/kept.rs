//! A PgBouncer as it is kept: written out, a third of its size. Thousands are kept, and few are looked
//! at at the same time.

use std::collections::BTreeMap;

use crate::api::PgBouncer;
use crate::api::annotations::OWN_PREFIX;
use crate::blueprint::bounds;
use crate::rotation::window::TEXT_MAX_BYTES;

/// What is kept of an annotation, in bytes: more than any may have, so that one that cannot be read
/// for its length still cannot.
const ANNOTATION_MAX: usize = 2 * TEXT_MAX_BYTES;

/// A PgBouncer, and what is asked of all of them.
#[derive(Debug)]
pub(super) struct Kept {
    json: Box<[u8]>,
    /// Names of the Secrets that its certificates are in; `None` without TLS.
    pub(super) secrets: Option<Box<[Box<str>]>>,
}

impl Kept {
    /// `None` for what cannot be written, of which there is nothing.
    pub(super) fn new(mut bouncer: PgBouncer) -> Option<Self> {
        // Who wrote which field is of no interest, nor is what others have noted on it, and what only its
        // pods and Services are made from.
        bouncer.metadata.managed_fields = None;
        bouncer.metadata.labels = None;
        if let Some(all) = &mut bouncer.metadata.annotations {
            all.retain(|key, _| key.starts_with(OWN_PREFIX));
            for text in all.values_mut() {
                let end = text.floor_char_boundary(ANNOTATION_MAX);
                text.truncate(end);
            }
        }
        let spec = &mut bouncer.spec;
        // Nothing is issued for one that is out of bounds.
        if let Some(tls) = &mut spec.tls
            && bounds::check_tls(tls.issuer_ref.as_ref(), &tls.certificates).is_err()
        {
            tls.issuer_ref = None;
            tls.certificates = Vec::new();
        }
        spec.pod_template = None;
        spec.init = None;
        spec.monitor = None;
        spec.service_templates = Vec::new();
        spec.database.database_ref.parameters = None;
        if let Some(custom) = &mut spec.configuration {
            custom.inline = BTreeMap::default();
        }
        let secrets = bouncer.spec.tls.as_ref().map(|tls| {
            let names = tls.certificates.iter();
            names
                .filter_map(|entry| entry.secret_name.as_deref().map(Box::from))
                .collect()
        });
        Some(Self {
            json: serde_json::to_vec(&bouncer).ok()?.into(),
            secrets,
        })
    }

    /// The PgBouncer.
    pub(super) fn open(&self) -> Option<PgBouncer> {
        serde_json::from_slice(&self.json).ok()
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;
    use crate::blueprint::testing::tls_bouncer;

    #[test]
    fn what_a_tenant_fills_an_object_with_is_not_kept() {
        let long = "x".repeat(200_000);
        let mut bouncer = tls_bouncer("billing");
        let annotations = bouncer.annotations_mut();
        annotations.insert("example.com/notes".into(), long.clone());
        annotations.insert(format!("{OWN_PREFIX}freeze-rotation"), long.clone());
        bouncer.spec.pod_template = Some(json!({ "spec": { "x": long } }));
        let tls = bouncer.spec.tls.get_or_insert_default();
        tls.certificates.push(crate::api::tls::CertificateSpec {
            alias: "other".into(),
            dns_names: vec![long; 3],
            ..Default::default()
        });
        let kept = Kept::new(bouncer).unwrap();
        assert!(kept.json.len() < 8_192, "{}", kept.json.len());
        // A freeze that cannot be read is still there, and still cannot.
        let open = kept.open().unwrap();
        let freeze = &open.annotations()[&format!("{OWN_PREFIX}freeze-rotation")];
        assert!(freeze.len() > TEXT_MAX_BYTES);
        // Of one within its bounds everything is kept that certificates are asked for by.
        let bouncer = tls_bouncer("billing");
        let spec = Kept::new(bouncer.clone()).unwrap().open().unwrap().spec;
        assert_eq!(spec.tls, bouncer.spec.tls);
    }
}
