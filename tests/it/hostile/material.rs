//! Certificates and keys, sound and unsound, and how to find a key again where it must not be.

use std::collections::BTreeSet;

use fastrand::Rng;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ED25519,
};
use time::OffsetDateTime;
use time::macros::datetime;

/// Characters of a key's base64 that nothing else has in common with it by chance.
const WINDOW: usize = 20;

/// What Secrets are filled with.
pub(super) struct Material {
    certificates: Vec<String>,
    keys: Vec<String>,
    windows: BTreeSet<String>,
}

impl Material {
    /// CAs and leaves: sound, expired, reversed, at the end of time, and of another key.
    pub(super) fn new() -> Self {
        let lives = [
            (
                datetime!(2024-01-01 0:00 UTC),
                datetime!(2040-01-01 0:00 UTC),
            ),
            (
                datetime!(2020-01-01 0:00 UTC),
                datetime!(2021-01-01 0:00 UTC),
            ),
            (
                datetime!(2040-01-01 0:00 UTC),
                datetime!(2024-01-01 0:00 UTC),
            ),
            (
                datetime!(2030-01-01 0:00 UTC),
                datetime!(2030-01-01 0:00 UTC),
            ),
            (
                datetime!(1950-01-01 0:00 UTC),
                datetime!(9999-12-31 23:59:59 UTC),
            ),
            (
                datetime!(9999-12-31 23:59:58 UTC),
                datetime!(9999-12-31 23:59:59 UTC),
            ),
        ];
        let (mut certificates, mut keys) = (Vec::new(), Vec::new());
        for (at, life) in lives.into_iter().enumerate() {
            let algorithm = if at % 2 == 0 {
                &PKCS_ECDSA_P256_SHA256
            } else {
                &PKCS_ED25519
            };
            let (ca_key, leaf_key) = (
                KeyPair::generate_for(algorithm).unwrap(),
                KeyPair::generate_for(algorithm).unwrap(),
            );
            let mut ca = params("hostile", life);
            ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            certificates.push(ca.self_signed(&ca_key).unwrap().pem());
            let leaf = params("x.tenant.svc", life);
            let issuer = Issuer::from_params(&ca, &ca_key);
            certificates.push(leaf.signed_by(&leaf_key, &issuer).unwrap().pem());
            keys.push(ca_key.serialize_pem());
            keys.push(leaf_key.serialize_pem());
        }
        let windows = keys.iter().flat_map(|key| windows(key)).collect();
        Self {
            certificates,
            keys,
            windows,
        }
    }

    /// One to three certificates, a bundle of many, or something that only looks so.
    pub(super) fn certificates(&self, random: &mut Rng) -> String {
        let size = if random.u8(..) < 8 {
            60
        } else {
            random.usize(1..4)
        };
        let chosen =
            (0..size).map(|_| self.certificates[random.usize(0..self.certificates.len())].clone());
        let text: String = chosen.collect();
        mangled(text, random)
    }

    /// A key, or what somebody has made of one.
    pub(super) fn key(&self, random: &mut Rng) -> String {
        mangled(self.keys[random.usize(0..self.keys.len())].clone(), random)
    }

    /// A part of a key that stands in `text`, if any does.
    pub(super) fn leaked(&self, text: &str) -> Option<&str> {
        let found = self
            .windows
            .iter()
            .find(|window| text.contains(window.as_str()));
        found.map(String::as_str)
    }
}

fn params(
    name: &str,
    (not_before, not_after): (OffsetDateTime, OffsetDateTime),
) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (not_before, not_after);
    params
}

/// What an editor, a template or a broken pipe makes of a PEM text; mostly nothing.
fn mangled(text: String, random: &mut Rng) -> String {
    match random.u8(0..16) {
        0 => text.replacen('\n', "\n\n", 2),
        1 => text.replace('\n', "\r\n"),
        2 => text.replace('\n', ""),
        3 => text.replace("END", "FIN"),
        4 => text[..random.usize(0..text.len())].to_owned(),
        5 => format!("{text}{text}"),
        6 => text.replace("PRIVATE KEY", "CERTIFICATE"),
        _ => text,
    }
}

/// The parts of a key that are secret: its PKCS#8 document begins like every other of its kind, and ends
/// with the public key, which certificates show.
fn windows(pem: &str) -> Vec<String> {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    // 32 octets: of P-256 from the 36th of 138, of Ed25519 from the 16th.
    let characters = if body.len() > 150 { 48..90 } else { 24..62 };
    let secret = body.get(characters).unwrap_or_default();
    let ends = WINDOW..=secret.len();
    ends.map(|end| secret[end - WINDOW..end].to_owned())
        .collect()
}
