//! What the fuzz targets do with their input; `make test` does the same with the corpus and with
//! changes of it.

use bouncert::duration::GoDuration;
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
