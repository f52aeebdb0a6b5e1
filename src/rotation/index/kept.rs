//! A PgBouncer as it is kept: written out, a third of its size. Thousands are kept, and few are looked
//! at at the same time.

use crate::api::PgBouncer;

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
        // Who wrote which field is of no interest.
        bouncer.metadata.managed_fields = None;
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
