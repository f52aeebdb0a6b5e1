//! What of a certificate that somebody else has made keeps some clients from accepting it.

use x509_parser::prelude::*;

use super::facts::CertificateFacts;

/// What is unusual about a certificate, for a person who wonders why one client connects and another does
/// not. Nothing is said of one that all clients read.
pub fn unusual(certificate: &[u8]) -> Vec<String> {
    let Ok((rest, parsed)) = parse_x509_certificate(certificate) else {
        return vec!["it cannot be read".to_owned()];
    };
    let mut found = Vec::new();
    if !rest.is_empty() {
        found.push("something follows it".to_owned());
    }
    match parsed.version() {
        X509Version::V3 => {}
        version => found.push(format!(
            "X.509 version {}: rustls refuses it, and it cannot carry the names that clients compare",
            version.0.saturating_add(1)
        )),
    }
    let facts = CertificateFacts::read(&certificate.to_vec().into());
    if let Some(facts) = &facts {
        match facts.key.as_str() {
            "ECDSA P-256" | "ECDSA P-384" | "Ed25519" => {}
            key if key.starts_with("RSA ") => found.extend(unusual_size(key)),
            "ECDSA P-521" => found.push(
                "its key is ECDSA P-521: rustls with ring does not check its signatures".to_owned(),
            ),
            key => found.push(format!(
                "its key is {key}, which OpenSSL reads, and neither Go nor rustls"
            )),
        }
        let has_names = !(facts.dns_names.is_empty() && facts.ip_addresses.is_empty());
        if !has_names && !facts.is_ca && facts.server_auth {
            found.push(
                "it has no alternative names: OpenSSL compares the common name, and Go and rustls refuse"
                    .to_owned(),
            );
        }
        if !facts.server_auth && !facts.is_ca {
            found.push("it is not for TLS servers by its extended key usage".to_owned());
        }
    }
    let algorithm = parsed.signature_algorithm.algorithm.to_id_string();
    let weak = [
        ("1.2.840.113549.1.1.4", "MD5"),
        ("1.2.840.113549.1.1.5", "SHA-1"),
        ("1.2.840.10045.4.1", "SHA-1"),
    ];
    if let Some((_, digest)) = weak.iter().find(|(oid, _)| *oid == algorithm) {
        found.push(format!("it is signed with {digest}, which clients refuse"));
    }
    found
}

fn unusual_size(key: &str) -> Option<String> {
    let bits: usize = key.strip_prefix("RSA ")?.parse().ok()?;
    (bits < super::key::RSA_MIN_BITS)
        .then(|| format!("its key is RSA of {bits} bits, which clients refuse"))
}

/// The `SubjectPublicKeyInfo` of a certificate of any version.
pub fn public_key(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = parse_x509_certificate(certificate).ok()?;
    Some(parsed.public_key().raw.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::testing::{NOW, key, openssl, root, serial, server};

    #[test]
    fn what_all_clients_read_is_not_unusual() {
        let ca = root("Plain");
        let issued = ca
            .sign(&server(), key().public_key(), serial(2), NOW)
            .unwrap();
        assert_eq!(unusual(issued.chain.leaf()), [""; 0]);
        assert_eq!(unusual(ca.certificate()), [""; 0]);
        assert_eq!(unusual(b"nothing"), ["it cannot be read"]);
    }

    #[test]
    fn what_some_clients_refuse_is_told() {
        for (algorithm, option, told) in [
            ("EC", "ec_paramgen_curve:P-521", "its key is ECDSA P-521"),
            ("RSA-PSS", "rsa_keygen_bits:2048", "its key is RSA-PSS"),
            ("RSA", "rsa_keygen_bits:1024", "its key is RSA of 1024 bits"),
            ("ED448", "", "its key is Ed448"),
        ] {
            let mut arguments = vec!["genpkey", "-algorithm", algorithm];
            if !option.is_empty() {
                arguments.extend(["-pkeyopt", option]);
            }
            let pem = openssl(&arguments, "").unwrap();
            let request = [
                "req",
                "-x509",
                "-key",
                "/dev/stdin",
                "-subj",
                "/CN=odd",
                "-days",
                "2",
            ];
            let certificate = openssl(&request, &pem).unwrap();
            let der = ::pem::parse(certificate).unwrap().into_contents();
            let found = unusual(&der);
            assert!(
                found.iter().any(|text| text.starts_with(told)),
                "{algorithm}: {found:?}"
            );
            assert!(public_key(&der).is_some());
        }
    }
}
