//! What the fuzz targets do with their input; `make test` does the same with the corpus and with
//! changes of it.

use bouncert::duration::GoDuration;
use bouncert::local::apiserver::bounds;
use bouncert::local::runner::payload::{Payload, Sources, check_mounts, check_names, payload};
use bouncert::pgbouncer::Version;
use bouncert::pgbouncer::ini::{self, Ini, Marker, Section, reader};
use bouncert::pki::authority::CertificateAuthority;
use bouncert::pki::bundle::TrustBundle;
use bouncert::pki::chain::{CertificateChain, KeyedChain};
use bouncert::pki::key::PrivateKey;
use bouncert::pki::{answer, csr};
use bouncert::policy::Policies;
use bouncert::printable;

/// Reads a document as every field of a Secret.
pub(crate) fn pem(text: &str) {
    let _ = PrivateKey::from_pem(text);
    let _ = KeyedChain::new(text, text);
    let _ = CertificateAuthority::load(text, text, Some(text));
    let _ = answer::assemble(text, &[text]);
    if let (Ok(chain), Ok(bundle)) = (
        CertificateChain::from_pem(text),
        TrustBundle::from_pem(text),
    ) {
        assert_eq!(CertificateChain::from_pem(&chain.to_pem()), Ok(chain));
        assert!(bundle.union(&bundle).len() <= bundle.len());
    }
}

/// Reads DER as whatever a PEM document may say it is: noise in PEM seldom gets as far as its DER.
pub(crate) fn der(bytes: &[u8]) {
    let labels = [
        "CERTIFICATE",
        "PRIVATE KEY",
        "EC PRIVATE KEY",
        "RSA PRIVATE KEY",
        "CERTIFICATE REQUEST",
    ];
    let [certificate, keys @ .., requested] =
        labels.map(|label| ::pem::encode(&::pem::Pem::new(label, bytes)));
    pem(&certificate);
    for key in keys {
        let _ = PrivateKey::from_pem(&key);
    }
    request(&requested);
}

/// Reads a request for a certificate.
pub(crate) fn request(text: &str) {
    let _ = csr::read(text);
    let _ = csr::ask_for_the_same(text, text);
}

/// Reads a duration; what is read is written so that it reads the same.
pub(crate) fn duration(text: &str) {
    if let Ok(duration) = text.parse::<GoDuration>() {
        assert_eq!(duration.to_string().parse(), Ok(duration));
    }
}

/// Reads policies.
pub(crate) fn policy(text: &str) {
    let _ = Policies::parse(text);
}

/// Makes text safe for a terminal.
pub(crate) fn printable(text: &str) {
    let line = printable::printable(text, 200);
    assert!(line.len() <= 200 && !line.contains(printable::is_hazard));
    assert_eq!(printable::printable(&line, 200), line);
    let document = printable::document(text);
    assert_eq!(printable::document(&document), document);
    let kept = |c: char| printable::is_hazard(c) && c != '\n' && c != '\t';
    assert!(!document.contains(kept));
}

/// Reads a file as each PgBouncer does; what is accepted is written so that it reads the same.
pub(crate) fn ini(text: &str) {
    for version in [Version::new(1, 18, 0), Version::new(1, 26, 1)] {
        let _ = reader::read(text, version);
        let _ = reader::pairs(text);
        let _ = reader::users(text);
        let Ok(ini) = Ini::parse(text) else { continue };
        if ini::check(&ini, version).is_ok() {
            let read = reader::read(&ini.publish(&Marker::of("0a1b")), version);
            let lines = Section::ALL
                .into_iter()
                .map(|section| ini.section(section).count());
            let marked = ini.get(Section::Pgbouncer, "stats_users").is_none();
            assert_eq!(
                read.map(|read| read.len()),
                Ok(lines.sum::<usize>() + usize::from(marked))
            );
        }
    }
}

/// Makes the files of volumes from a document with `volumes`, `mounts`, a `secret` and a `configMap`;
/// none leaves its volume, or has a name of the runner's.
pub(crate) fn projection(text: &str) {
    let Ok(mut document) = serde_json::from_str::<serde_json::Value>(text) else {
        return;
    };
    let mut part = |name: &str| document.get_mut(name).map(serde_json::Value::take);
    let volumes: Vec<k8s_openapi::api::core::v1::Volume> = read(part("volumes"));
    let mounts: Vec<k8s_openapi::api::core::v1::VolumeMount> = read(part("mounts"));
    let mut sources = Sources::default();
    sources.secrets.insert("s".to_owned(), read(part("secret")));
    sources
        .config_maps
        .insert("m".to_owned(), read(part("configMap")));
    if check_names(&volumes).is_err() {
        return;
    }
    let _ = check_mounts(&mounts, &volumes);
    for volume in &volumes {
        assert!(!volume.name.contains(['/', '.', '\0']));
        let Ok(Payload::Files(files)) = payload(volume, &sources) else {
            continue;
        };
        for path in files.keys() {
            let sound = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
            assert!(
                path.split('/').all(sound) && !path.starts_with(".."),
                "{path:?}"
            );
        }
    }
}

fn read<T: serde::de::DeserializeOwned + Default>(value: Option<serde_json::Value>) -> T {
    value
        .and_then(|value| serde_json::from_value(value).ok())
        .unwrap_or_default()
}

/// Applies the JSON patch of a document with `object` and `patch`; what comes out is within its
/// bounds.
pub(crate) fn patch(text: &str) {
    let Ok(document) = serde_json::from_str::<serde_json::Value>(text) else {
        return;
    };
    let Ok(patch) = serde_json::from_value::<json_patch::Patch>(document["patch"].clone()) else {
        return;
    };
    let mut object = document["object"].clone();
    if bounds::check_size(None, &object).is_err() || bounds::check_depth(&object).is_err() {
        return;
    }
    if bounds::json_patch(&mut object, &patch).is_ok() {
        assert!(bounds::check_size(None, &object).is_ok());
        assert!(bounds::check_depth(&object).is_ok());
    }
}
