//! CAs that differ in what their certificates state, and in their algorithms.

use super::super::forge::{BARE, CA, Forge, Made};
use super::{Shape, shape};

pub(super) fn identifiers() -> Vec<Shape> {
    let forge = Forge::new();
    let with = |ski: &str, aki: &str| {
        CA.replace("=hash", &format!("={ski}"))
            .replace("=keyid", &format!("={aki}"))
    };
    forge.extended("bare", "Bare", None, BARE);
    forge.extended("none", "None", Some("bare"), BARE);
    forge.extended("twin", "Bare", None, BARE);
    forge.ca("root", "Root", None);
    forge.extended(
        "named",
        "Named",
        Some("root"),
        &with("hash", "keyid,issuer:always"),
    );
    forge.extended("plain", "Plain", Some("root"), BARE);
    // A renewed root of the same key with another identifier, and CAs that name either.
    let renewed = with("0102030405060708", "none");
    forge.extended("root.renewed", "Root", None, &renewed);
    forge.extended("late", "Late", Some("root.renewed"), CA);
    forge.extended("early", "Early", Some("root"), CA);
    listed(
        &forge,
        "root without identifiers | bare | bare |
        no identifiers anywhere | none | none | bare
        identifiers in the root only | plain | plain | root
        issuer and serial number as identifier | named | named | root
        renewed root, other identifier | early | early | root.renewed
        renewed and former root | early | early | root.renewed root
        former and renewed root | late | late | root root.renewed
        roots of one key, both sign | root | root.renewed | root
        namesakes without identifiers, right first | bare | bare | twin
        namesakes without identifiers, other first | none | none | twin bare",
    )
}

pub(super) fn extensions() -> Vec<Shape> {
    let forge = Forge::new();
    let root = |file, more: &str| forge.extended(file, file, None, &format!("{CA}{more}"));
    forge.ca("root", "Root", None);
    for (file, more) in [
        ("both", "extendedKeyUsage=serverAuth,clientAuth\n"),
        ("server", "extendedKeyUsage=serverAuth\n"),
        ("email", "extendedKeyUsage=emailProtection\n"),
        ("any", "extendedKeyUsage=anyExtendedKeyUsage\n"),
        ("unknown", "1.2.3.4=critical,ASN1:NULL\n"),
        ("plain", "1.2.3.4=ASN1:NULL\n"),
    ] {
        root(file, more);
    }
    forge.extended(
        "one",
        "One",
        Some("root"),
        &format!("{CA}1.2.3.4=critical,ASN1:NULL\n"),
    );
    forge.extended(
        "two",
        "Two",
        Some("root"),
        &format!("{CA}extendedKeyUsage=emailProtection\n"),
    );
    forge.extended(
        "usage",
        "Usage",
        None,
        "basicConstraints=critical,CA:TRUE\nsubjectKeyIdentifier=hash\n",
    );
    forge.extended("crl", "CRL", None, &CA.replace("keyCertSign,", ""));
    forge.ca("below", "Below", Some("crl"));
    forge.extended(
        "critical",
        "Critical",
        None,
        &CA.replace("=hash", "=critical,hash"),
    );
    forge.extended("v1", "V1", None, "");
    let unnamed = CA.replace("authorityKeyIdentifier=keyid\n", "");
    forge.extended("old", "Old", Some("v1"), &unnamed);
    forge.extended("mid", "Mid", Some("root"), "");
    forge.extended("last", "Last", Some("mid"), &unnamed);
    forge.extended(
        "loose",
        "Loose",
        None,
        "basicConstraints=CA:TRUE\nkeyUsage=keyCertSign\nsubjectKeyIdentifier=hash\n",
    );
    let mut shapes = listed(
        &forge,
        "root for both purposes | both | both |
        root for servers only | server | server |
        root for e-mail only | email | email |
        root for any purpose | any | any |
        root with an unknown critical extension | unknown | unknown |
        root with an unknown extension | plain | plain |
        CA with an unknown critical extension | one | one | root
        CA for e-mail only | two | two | root
        root without keyUsage | usage | usage |
        root without keyCertSign | crl | crl |
        CA below a root without keyCertSign | below | below | crl
        critical subjectKeyIdentifier | critical | critical |
        X.509 v1 root | v1 | v1 |
        CA below an X.509 v1 root | old | old | v1
        X.509 v1 between CA and root | last | last mid | root
        basicConstraints not critical | loose | loose |",
    );
    for shape in &mut shapes {
        if shape.name == "X.509 v1 root" {
            shape.alone = "is not a CA";
        }
    }
    shapes
}

pub(super) fn policies() -> Vec<Shape> {
    let forge = Forge::new();
    forge.ca("root", "Root", None);
    for (file, more) in [
        ("any", "certificatePolicies=critical,2.5.29.32.0\n"),
        ("own", "certificatePolicies=critical,1.2.3.4\n"),
        (
            "explicit",
            "policyConstraints=critical,requireExplicitPolicy:0\n",
        ),
        (
            "mapping",
            "policyConstraints=critical,inhibitPolicyMapping:0\n",
        ),
        ("inhibit", "inhibitAnyPolicy=critical,0\n"),
    ] {
        forge.extended(file, file, Some("root"), &format!("{CA}{more}"));
    }
    forge.extended(
        "top",
        "Top",
        None,
        &format!("{CA}policyConstraints=critical,requireExplicitPolicy:0\n"),
    );
    let of = |name, file: &'static str| shape(name, &forge, file, &[file], &["root"]);
    vec![
        of("critical anyPolicy", "any"),
        of("a critical policy of its own", "own"),
        of("critical requireExplicitPolicy", "explicit").alone("policyConstraints"),
        of("critical inhibitPolicyMapping", "mapping"),
        of("critical inhibitAnyPolicy", "inhibit"),
        shape(
            "root with requireExplicitPolicy",
            &forge,
            "top",
            &["top"],
            &[],
        ),
    ]
}

/// How the root's key is made, how it signs, and what we say where we refuse alone.
const ALGORITHMS: &str = "below P-256 with SHA-512 | EC:P-256 | -sha512 |
    below P-384 with SHA-384 | EC:P-384 | -sha384 |
    below P-384 with SHA-256 | EC:P-384 | -sha256 |
    below P-384 with SHA-512 | EC:P-384 | -sha512 |
    below P-521 with SHA-512 | EC:P-521 | -sha512 |
    below P-521 with SHA-256 | EC:P-521 | -sha256 |
    below Ed25519 | ED25519 | |
    below RSA-2048 | RSA:2048 | -sha256 |
    below RSA-4096 with SHA-512 | RSA:4096 | -sha512 |
    below RSA with exponent 3 | RSA:2048 -pkeyopt rsa_keygen_pubexp:3 | -sha256 |
    below RSA, signed with PSS | RSA:2048 | PSS:32 |
    below RSA, PSS with a salt of 20 | RSA:2048 | PSS:20 |
    below an RSA-PSS key | RSA-PSS:2048 | PSS:32 |
    below RSA-1024 | RSA:1024 | -sha256 |
    below RSA with SHA-1 | RSA:2048 | -sha1 |
    below P-256 with SHA-1 | EC:P-256 | -sha1 |
    below DSA with SHA-256 | DSA | -sha256 | DSA with SHA-256
    below Ed448 | ED448 | | Ed448
    below brainpoolP256r1 | EC:brainpoolP256r1 | -sha256 | brainpool";

/// A P-256 CA below a root of another algorithm.
pub(super) fn algorithms() -> Vec<Shape> {
    const PSS: &str = "-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:";
    let rows = ALGORITHMS.lines().map(cells);
    rows.map(|[name, kind, sign, alone]| {
        let kind = match kind.split_once(':') {
            None if kind == "DSA" => kind.to_owned(),
            None => format!("-algorithm {kind}"),
            Some(("EC", curve)) => format!("-algorithm EC -pkeyopt ec_paramgen_curve:{curve}"),
            Some((rsa, bits)) => format!("-algorithm {rsa} -pkeyopt rsa_keygen_bits:{bits}"),
        };
        let sign = sign.replace("PSS:", PSS);
        let forge = Forge::new();
        forge.key("root", &kind);
        let root = Made {
            file: "root",
            name: "Root",
            key: "root",
            by: None,
            extensions: CA,
            sign: &sign,
        };
        forge.make(&root);
        forge.make(&Made {
            file: "ca",
            name: "Issuing",
            key: "ca",
            by: Some(("root", "root")),
            ..root.clone()
        });
        shape(name, &forge, "ca", &["ca"], &["root"]).alone(alone)
    })
    .collect()
}

/// Shapes of lines `name | key | files of tls.crt | files of ca.crt`.
fn listed(forge: &Forge, rows: &'static str) -> Vec<Shape> {
    let row = |line| {
        let [name, key, tls, ca] = cells(line);
        let files = |cell: &'static str| -> Vec<&str> { cell.split_whitespace().collect() };
        shape(name, forge, key, &files(tls), &files(ca))
    };
    rows.lines().map(row).collect()
}

fn cells(line: &'static str) -> [&'static str; 4] {
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    cells.try_into().unwrap()
}
