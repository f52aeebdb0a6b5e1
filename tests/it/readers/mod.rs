//! CAs as people have them, and their readers: what OpenSSL, libpq (psql), PgBouncer and others say of
//! what Bouncert would serve, beside Bouncert's own verdict. `docs/pki.md` holds the table.
//!
//! Two rules: what Bouncert accepts, libpq and PgBouncer accept; what it refuses they refuse, too, or its
//! text says who would have accepted it.

mod forge;
mod limbo;
mod programs;
mod shapes;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use bouncert::causes::chain;
use bouncert::pki::authority::{CertificateAuthority, Serial};
use bouncert::pki::chain::{Expectation, KeyedChain};
use bouncert::pki::key::{KeyAlgorithm, KeyEncoding, PrivateKey};
use bouncert::pki::profile::{LeafProfile, LeafUsage};
use time::{Duration, OffsetDateTime};

use self::programs::{OTHERS, Said, handshake, openssl};
use self::shapes::Shape;

/// A leaf with its chain and key, in PEM.
struct Served {
    chain: String,
    key: String,
}

/// What would be published of a CA.
struct Composed {
    server: Served,
    client: Served,
    bundle: String,
}

/// One row of the table.
struct Row {
    shape: &'static Shape,
    ours: Result<Composed, String>,
    openssl: Said,
}

fn server() -> LeafProfile {
    LeafProfile {
        dns_names: vec!["localhost".to_owned()],
        lifetime: Duration::days(7),
        ..LeafProfile::new(LeafUsage::ServerAndClient, "localhost")
    }
}

fn client() -> LeafProfile {
    LeafProfile {
        lifetime: Duration::days(7),
        ..LeafProfile::new(LeafUsage::Client, "clerk")
    }
}

/// What Bouncert would publish, or why it does not.
fn ours(shape: &Shape) -> Result<Composed, String> {
    let roots = Some(shape.ca_crt.as_str());
    let ca = CertificateAuthority::load(&shape.tls_crt, &shape.tls_key, roots);
    let ca = ca.map_err(|error| chain(&error))?;
    #[expect(
        clippy::disallowed_methods,
        reason = "programs of the machine have its time"
    )]
    let now = OffsetDateTime::now_utc();
    let mut bundle = String::new();
    let mut both = Vec::new();
    for (profile, number) in [(server(), 1), (client(), 2)] {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let text = key.to_pem(KeyEncoding::Pkcs8).expose().clone();
        let serial = Serial::from_random([number; 20]);
        let issued = ca.sign(&profile, key.public_key(), serial, now);
        let issued = issued.map_err(|error| chain(&error))?;
        let keyed = KeyedChain::from_parts(issued.chain, key, KeyEncoding::Pkcs8).unwrap();
        let verified = keyed.verify(&issued.anchors, &Expectation::of(&profile, now));
        let data = verified
            .map_err(|verdict| chain(&verdict))?
            .into_secret_data();
        bundle = data.ca_crt;
        both.push(Served {
            chain: data.tls_crt,
            key: text,
        });
    }
    let client = both.pop().unwrap();
    let server = both.pop().unwrap();
    Ok(Composed {
        server,
        client,
        bundle,
    })
}

/// What a person would publish of a CA that Bouncert refuses: all of `tls.crt` below the leaf, and as trust
/// `ca.crt`, else `tls.crt`.
fn natural(shape: &Shape) -> Option<Composed> {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("ca.crt"), &shape.tls_crt).unwrap();
    fs::write(path("ca.key"), &shape.tls_key).unwrap();
    let leaf = |name: &str, usage: &str, more: &str| {
        let extensions = format!(
            "keyUsage=critical,digitalSignature\nextendedKeyUsage={usage}\n\
             subjectKeyIdentifier=hash\n{more}"
        );
        fs::write(path(&format!("{name}.ext")), extensions).unwrap();
        let run = |line: &str| {
            let line = line.replace('@', directory.path().to_str().unwrap());
            let output = std::process::Command::new("openssl")
                .args(line.split_whitespace())
                .output()
                .unwrap();
            output.status.success()
        };
        run(&format!(
            "genpkey -out @/{name}.key -algorithm EC -pkeyopt ec_paramgen_curve:P-256"
        )) && run(&format!(
            "req -new -key @/{name}.key -subj /CN=clerk -out @/{name}.csr"
        )) && run(&format!(
            "x509 -req -in @/{name}.csr -CA @/ca.crt -CAkey @/ca.key -set_serial 5 -days 7 \
             -extfile @/{name}.ext -out @/{name}.crt"
        ))
    };
    // A CA without an identifier of its own cannot be named by one.
    let is_made = ["authorityKeyIdentifier=keyid\n", ""].iter().any(|named| {
        let server = format!("subjectAltName=DNS:localhost\n{named}");
        leaf("server", "serverAuth,clientAuth", &server) && leaf("client", "clientAuth", named)
    });
    let served = |name: &str| {
        let read = |end: &str| fs::read_to_string(path(&format!("{name}.{end}"))).unwrap();
        Served {
            chain: format!("{}{}", read("crt"), shape.tls_crt),
            key: read("key"),
        }
    };
    let bundle = if shape.ca_crt.is_empty() {
        shape.tls_crt.clone()
    } else {
        shape.ca_crt.clone()
    };
    is_made.then(|| Composed {
        server: served("server"),
        client: served("client"),
        bundle,
    })
}

/// OpenSSL's word on both purposes.
fn both(composed: &Composed) -> Said {
    openssl(&composed.server.chain, &composed.bundle, "sslserver")
        .map_err(|error| format!("server: {error}"))?;
    openssl(&composed.client.chain, &composed.bundle, "sslclient")
        .map_err(|error| format!("client: {error}"))
}

fn row(shape: &'static Shape) -> Row {
    let ours = ours(shape);
    let openssl = match &ours {
        Ok(composed) => both(composed),
        Err(_) => match natural(shape) {
            Some(composed) => both(&composed),
            None => Err("openssl cannot sign with this CA".to_owned()),
        },
    };
    Row {
        shape,
        ours,
        openssl,
    }
}

fn rows() -> Vec<Row> {
    shapes::all().iter().map(row).collect()
}

/// What breaks one of the two rules.
fn broken(row: &Row) -> Option<String> {
    let name = row.shape.name;
    match (&row.ours, &row.openssl) {
        (Ok(_), Err(said)) => Some(format!("{name}: accepted, and OpenSSL says {said}")),
        (Err(ours), _) if ours.contains("add it to ca.crt") && name != "root missing" => {
            Some(format!("{name}: wants what is there: {ours}"))
        }
        (Err(ours), Ok(())) if row.shape.alone.is_empty() || !ours.contains(row.shape.alone) => {
            Some(format!("{name}: OpenSSL accepts, and we say {ours}"))
        }
        (Ok(_), Ok(())) | (Err(_), _) => None,
    }
}

const BEGIN: &str = "<!-- readers: written by tests/it/readers, GOLDEN=update -->\n";
const END: &str = "<!-- end of readers -->\n";

/// The text with a word in place of each instant.
fn timeless(text: &str) -> String {
    let is_instant = |word: &str| word.len() == 20 && word.contains('T') && word.ends_with('Z');
    let words = text.split_whitespace().map(|word| {
        let (plain, end) = match word.split_once(')') {
            Some((plain, rest)) => (plain, format!("){rest}")),
            None => (word, String::new()),
        };
        if is_instant(plain) {
            format!("INSTANT{end}")
        } else {
            word.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn table(rows: &[Row]) -> String {
    let cell = |said: Result<(), &String>| match said {
        Ok(()) => "accepted".to_owned(),
        Err(text) => format!("refused: {}", timeless(&text.replace('|', "/"))),
    };
    let mut text = "| CA | Bouncert | OpenSSL |\n|---|---|---|\n".to_owned();
    for row in rows {
        let ours = cell(row.ours.as_ref().map(drop));
        let theirs = cell(row.openssl.as_ref().copied());
        let _ = writeln!(text, "| {} | {ours} | {theirs} |", row.shape.name);
    }
    text
}

/// Compares a part of `docs/pki.md` with `text`, or writes it.
fn golden(begin: &str, end: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pki.md");
    let document = fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(begin).expect("the table's begin");
    let (held, after) = rest.split_once(end).expect("the table's end");
    if std::env::var_os("GOLDEN").is_some_and(|value| value == "update") {
        fs::write(&path, format!("{before}{begin}{text}{end}{after}")).unwrap();
        return;
    }
    // Another OpenSSL may say the same in other words.
    let plain = |text: &str| -> Vec<String> {
        let lines = text.lines().map(|line| {
            let mut cells: Vec<&str> = line.split('|').map(str::trim).collect();
            if let Some(last) = cells.iter_mut().rev().nth(1) {
                *last = last.split(':').next().unwrap_or_default();
            }
            cells.join("|")
        });
        lines.collect()
    };
    assert_eq!(plain(held), plain(text), "docs/pki.md: GOLDEN=update");
}

#[test]
fn what_we_accept_openssl_accepts_and_what_we_refuse_has_a_true_reason() {
    let rows = rows();
    let broken: Vec<String> = rows.iter().filter_map(broken).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    golden(BEGIN, END, &table(&rows));
}

#[tokio::test]
async fn psql_and_pgbouncer_accept_what_we_accept() {
    let mut n_asked = 0;
    for shape in shapes::all() {
        if let Ok(composed) = ours(shape) {
            let said = handshake(&composed).await;
            said.unwrap_or_else(|error| panic!("{}: {error}", shape.name));
            n_asked += 1;
        }
    }
    assert!(n_asked > 30, "{n_asked} were accepted");
}

/// They see that the handshakes can fail, and why: what is refused is refused by psql or by PgBouncer.
#[tokio::test]
async fn psql_or_pgbouncer_refuse_what_openssl_refuses() {
    const ASKED: [&str; 5] = [
        "link certificate as ca.crt",
        "renewed root, other identifier",
        "root for servers only",
        "root with an unknown critical extension",
        "critical subjectKeyIdentifier",
    ];
    for shape in shapes::all() {
        if !ASKED.contains(&shape.name) {
            continue;
        }
        assert!(ours(shape).is_err(), "{}", shape.name);
        let said = handshake(&natural(shape).unwrap()).await.unwrap_err();
        let is_about_trust = ["certificate verify failed", "alert", "unknown ca"]
            .iter()
            .any(|word| said.contains(word));
        assert!(is_about_trust, "{}: {said}", shape.name);
    }
}

const OTHERS_BEGIN: &str = "<!-- other readers: written by make readers, GOLDEN=update -->\n";
const OTHERS_END: &str = "<!-- end of other readers -->\n";

/// `make readers`: what clients that are not on libpq say of the server's chain.
#[test]
fn other_readers_are_asked_where_they_are() {
    if std::env::var_os("BOUNCERT_READERS").is_none_or(|value| value.is_empty()) {
        println!("NOT RUN: `make readers` asks Go, Java, Node.js, Python, cryptography and GnuTLS");
        return;
    }
    let cases = tempfile::tempdir().unwrap();
    let mut names = Vec::new();
    let accepted = shapes::all().iter().filter_map(|shape| {
        let composed = ours(shape).ok()?;
        Some((shape.name.to_owned(), composed))
    });
    // What Bouncert refuses and OpenSSL does not, as a person would publish it.
    let alone = shapes::all().iter().filter(|shape| !shape.alone.is_empty());
    let alone = alone.filter_map(|shape| {
        let name = format!("{} (Bouncert refuses it)", shape.name);
        Some((name, natural(shape)?))
    });
    for (name, composed) in accepted.chain(alone) {
        let directory = cases.path().join(names.len().to_string());
        fs::create_dir(&directory).unwrap();
        for (name, text) in [
            ("chain.pem", &composed.server.chain),
            ("key.pem", &composed.server.key),
            ("bundle.pem", &composed.bundle),
        ] {
            fs::write(directory.join(name), text).unwrap();
        }
        names.push(name);
    }
    let mut text = String::new();
    for other in &OTHERS {
        let version = match other.version() {
            Ok(version) => version,
            Err(reason) => {
                println!("{}: NOT RUN: {reason}", other.title);
                let _ = writeln!(text, "- **{}**: not asked.", other.title);
                continue;
            }
        };
        let said = other.judge(cases.path());
        assert_eq!(said.len(), names.len(), "{}", other.title);
        let refused: Vec<String> = names
            .iter()
            .zip(&said)
            .filter_map(|(name, said)| {
                let reason: String = said.as_ref().err()?.chars().take(100).collect();
                Some(format!("  - {name}: {}\n", reason.trim()))
            })
            .collect();
        let n_accepted = names.len() - refused.len();
        println!("{} ({version}): {n_accepted} accepted", other.title);
        let _ = writeln!(
            text,
            "- **{}** ({version}) accepts {n_accepted} of {}{}",
            other.title,
            names.len(),
            if refused.is_empty() {
                "."
            } else {
                ", and refuses:"
            }
        );
        text.push_str(&refused.concat());
    }
    println!("{text}");
    if std::env::var_os("GOLDEN").is_some_and(|value| value == "update") {
        golden(OTHERS_BEGIN, OTHERS_END, &text);
    }
}
