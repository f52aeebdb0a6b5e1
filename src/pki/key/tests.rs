use super::*;
use crate::pki::testing::openssl;

const ELLIPTIC: [KeyAlgorithm; 3] = [
    KeyAlgorithm::EcdsaP256,
    KeyAlgorithm::EcdsaP384,
    KeyAlgorithm::Ed25519,
];

fn label(pem: &Redacted<String>) -> String {
    pem.expose().lines().next().unwrap().to_owned()
}

fn assert_reads_back(key: &PrivateKey) {
    for encoding in [KeyEncoding::Pkcs1, KeyEncoding::Pkcs8] {
        let pem = key.to_pem(encoding);
        let again = PrivateKey::from_pem(pem.expose()).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        assert_eq!(again.to_pem(encoding), pem);
        assert_eq!(
            PublicKey::from_spki(key.public_key_der()).unwrap(),
            *key.public_key()
        );
        // OpenSSL finds the key sound and derives the same public half.
        openssl(&["pkey", "-check", "-noout"], pem.expose()).unwrap();
        let public = openssl(&["pkey", "-pubout"], pem.expose()).unwrap();
        assert_eq!(public, pem::write_block("PUBLIC KEY", key.public_key_der()));
    }
}

#[test]
fn every_elliptic_key_reads_what_it_writes_and_openssl_agrees() {
    for algorithm in ELLIPTIC {
        assert_reads_back(&PrivateKey::generate(algorithm).unwrap());
    }
}

#[test]
fn an_rsa_key_reads_what_it_writes_and_openssl_agrees() {
    for (algorithm, bits) in [
        (KeyAlgorithm::Rsa2048, 2048),
        (KeyAlgorithm::Rsa3072, 3072),
        (KeyAlgorithm::Rsa4096, 4096),
    ] {
        let key = PrivateKey::generate(algorithm).unwrap();
        assert_eq!(key.kind(), KeyKind::Rsa { bits });
        assert_reads_back(&key);
        assert_eq!(
            label(&key.to_pem(KeyEncoding::Pkcs1)),
            "-----BEGIN RSA PRIVATE KEY-----"
        );
        assert_eq!(
            label(&key.to_pem(KeyEncoding::Pkcs8)),
            "-----BEGIN PRIVATE KEY-----"
        );
    }
}

#[test]
fn halves_that_do_not_belong_together_make_no_key() {
    for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384] {
        let [ours, theirs] = [(); 2].map(|()| PrivateKey::generate(algorithm).unwrap());
        for encoding in [KeyEncoding::Pkcs1, KeyEncoding::Pkcs8] {
            let document = ::pem::parse(ours.to_pem(encoding).expose()).unwrap();
            let (label, mut der) = (document.tag().to_owned(), document.into_contents());
            let at = der.len() - theirs.public.bits().len();
            der[at..].copy_from_slice(theirs.public.bits());
            let error = PrivateKey::from_pem(&pem::write_block(&label, &der)).unwrap_err();
            assert!(
                error.to_string().contains("do not belong together"),
                "{error}"
            );
        }
    }
}

#[test]
fn pkcs1_means_sec1_for_ecdsa_and_pkcs8_for_ed25519() {
    let labels = ELLIPTIC.map(|algorithm| {
        label(
            &PrivateKey::generate(algorithm)
                .unwrap()
                .to_pem(KeyEncoding::Pkcs1),
        )
    });
    assert_eq!(
        labels,
        [
            "-----BEGIN EC PRIVATE KEY-----",
            "-----BEGIN EC PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----"
        ]
    );
}

#[test]
fn keys_that_openssl_makes_are_read() {
    let made: [&[&str]; 5] = [
        &["ecparam", "-name", "prime256v1", "-genkey"],
        &[
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-384",
        ],
        &["genpkey", "-algorithm", "ED25519"],
        &["genrsa", "-traditional", "2048"],
        &["genrsa", "3072"],
    ];
    let kinds = made.map(|arguments| {
        PrivateKey::from_pem(&openssl(arguments, "").unwrap())
            .unwrap()
            .kind()
            .to_string()
    });
    assert_eq!(
        kinds,
        [
            "ECDSA P-256",
            "ECDSA P-384",
            "Ed25519",
            "RSA 2048",
            "RSA 3072"
        ]
    );
}

/// A CA with that key, and a leaf below it, which OpenSSL accepts as well.
fn assert_signs(key: PrivateKey) {
    use crate::pki::authority::CertificateAuthority;
    use crate::pki::profile::CaProfile;
    use crate::pki::testing::{NOW, openssl_verify, serial, server};
    let kind = key.kind();
    let profile = CaProfile::new("Signing root", time::Duration::days(3650));
    let ca = CertificateAuthority::self_signed(&profile, key, serial(1), NOW).unwrap();
    let leaf_key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let issued = ca
        .sign(&server(), leaf_key.public_key(), serial(2), NOW)
        .unwrap();
    let expected = crate::pki::chain::Expectation::of(&server(), NOW);
    let verdict = issued.chain.verify(ca.anchors(), &expected);
    assert!(verdict.is_ok(), "{kind}: {verdict:?}");
    openssl_verify(&issued.chain, ca.anchors(), "sslserver", NOW).unwrap();
}

#[test]
fn every_sound_rsa_key_is_read_and_signs() {
    for (arguments, bits) in [
        (["genrsa", "-traditional", "-3", "2048"].as_slice(), 2048),
        (&["genrsa", "-3", "3072"], 3072),
        (&["genrsa", "-traditional", "2432"], 2432),
        (&["genrsa", "2560"], 2560),
        (&["genrsa", "2056"], 2056),
        (&["genrsa", "-primes", "3", "2048"], 2048),
        (&["genrsa", "-traditional", "-primes", "3", "3072"], 3072),
        (&["genrsa", "-primes", "4", "4096"], 4096),
    ] {
        let made = openssl(arguments, "").unwrap();
        let key = PrivateKey::from_pem(&made).unwrap_or_else(|e| panic!("{arguments:?}: {e}"));
        assert_eq!(key.kind(), KeyKind::Rsa { bits }, "{arguments:?}");
        assert_reads_back(&key);
        assert_signs(key);
    }
}

#[test]
fn rsa_numbers_that_do_not_belong_together_make_no_key() {
    for arguments in [
        ["genrsa", "-traditional", "2048"].as_slice(),
        &["genrsa", "-traditional", "-3", "2048"],
        &["genrsa", "-traditional", "2560"],
        &["genrsa", "-traditional", "-primes", "3", "2048"],
    ] {
        let made = ::pem::parse(openssl(arguments, "").unwrap()).unwrap();
        let der = made.contents();
        let numbers = RsaNumbers::read(der).unwrap();
        // In the modulus, and in every prime.
        for number in [numbers.modulus].iter().chain(&numbers.primes) {
            let at = number.as_ptr() as usize - der.as_ptr() as usize + number.len() / 2;
            let mut damaged = der.to_vec();
            damaged[at] ^= 0x40;
            let error = PrivateKey::from_pem(&pem::write_block("RSA PRIVATE KEY", &damaged));
            assert!(
                matches!(error, Err(KeyError::Malformed { .. })),
                "{arguments:?} {at}: {error:?}"
            );
        }
    }
}

#[test]
fn elliptic_keys_are_read_with_a_short_public_half_and_without_one() {
    for curve in ["prime256v1", "secp384r1"] {
        let made = openssl(&["ecparam", "-name", curve, "-genkey", "-noout"], "").unwrap();
        let expected = PrivateKey::from_pem(&made).unwrap();
        for change in [["-conv_form", "compressed"].as_slice(), &["-no_public"]] {
            let sec1 = openssl(&[["ec"].as_slice(), change].concat(), &made).unwrap();
            let pkcs8 = openssl(&["pkcs8", "-topk8", "-nocrypt"], &sec1).unwrap();
            for text in [sec1, pkcs8] {
                let key = PrivateKey::from_pem(&text).unwrap_or_else(|e| panic!("{change:?}: {e}"));
                assert_eq!(key.public_key(), expected.public_key(), "{change:?}");
                assert_reads_back(&key);
            }
        }
        assert_signs(expected);
    }
    // A number of zero, or not below the order of the curve, is not a key.
    for scalar in [[0_u8; 32], [0xff; 32]] {
        let der = [
            &[0x30, 0x31, 2, 1, 1, 4, 32],
            scalar.as_slice(),
            &[0xa0, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7],
        ]
        .concat();
        let error = PrivateKey::from_pem(&pem::write_block("EC PRIVATE KEY", &der)).unwrap_err();
        assert!(error.to_string().contains("order of its curve"), "{error}");
    }
}

#[test]
fn a_key_that_cannot_be_used_says_why() {
    let error = |arguments: &[&str]| {
        PrivateKey::from_pem(&openssl(arguments, "").unwrap())
            .unwrap_err()
            .to_string()
    };
    let p521 = error(&["ecparam", "-name", "secp521r1", "-genkey"]);
    assert!(p521.contains("ECDSA P-521"), "{p521}");
    let large = error(&["genrsa", "4104"]);
    assert!(large.contains("4104 bits is too large"), "{large}");
    let small = error(&["genrsa", "1024"]);
    assert!(small.contains("1024 bits is too small"), "{small}");
    let other_curve = error(&["ecparam", "-name", "secp256k1", "-genkey"]);
    assert!(other_curve.contains("1.3.132.0.10"), "{other_curve}");
    let encrypted = error(&["genrsa", "-aes128", "-passout", "pass:opensesame", "2048"]);
    assert!(encrypted.contains("encrypted"), "{encrypted}");
    let legacy = error(&[
        "genrsa",
        "-traditional",
        "-aes128",
        "-passout",
        "pass:opensesame",
        "2048",
    ]);
    assert!(legacy.contains("encrypted"), "{legacy}");
}

#[test]
fn a_document_without_a_key_names_what_it_has_instead() {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let public = pem::write_block("PUBLIC KEY", key.public_key_der());
    let error = PrivateKey::from_pem(&public).unwrap_err();
    assert_eq!(
        error,
        KeyError::Document(PemError::Missing {
            wanted: "private key",
            found: [Label::PublicKey].into_iter().collect()
        })
    );
    assert!(PrivateKey::from_pem("not a key").is_err());
}

#[test]
fn a_private_key_does_not_print() {
    let key = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
    assert_eq!(format!("{key:?}"), "PrivateKey(Ed25519, <redacted>)");
}
