//! Private keys of every kind as people and tools damage them, and the search for what is left of them.

use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bouncert::clock::Clock;
use bouncert::pki::authority::{CertificateAuthority, Serial};
use bouncert::pki::key::{KeyAlgorithm, KeyEncoding, PrivateKey};
use bouncert::pki::profile::CaProfile;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Length of the pieces that are looked for: characters of text, octets of lists.
const WINDOW: usize = 16;
const OCTETS: usize = 8;

/// A key that nothing may show.
pub(crate) struct Original {
    pub(crate) name: &'static str,
    pub(crate) pem: String,
    pieces: HashSet<Vec<u8>>,
}

/// What is done to a key.
#[derive(Clone, Debug)]
pub(crate) enum Mutation {
    /// A line is put in.
    Line(Index, &'static str),
    /// A line is put in after every line.
    Lines(&'static str),
    /// Text is put in anywhere.
    Within(Index, &'static str),
    /// A line goes.
    Without(Index),
    /// The text ends early.
    Cut(Index),
    /// The text begins late.
    Behead(Index),
    /// One text takes the place of another.
    Replace(&'static str, &'static str),
    /// It is there twice.
    Twice,
    /// A certificate stands before it.
    AfterCertificate,
    /// A certificate stands after it.
    BeforeCertificate,
    /// Everything on one line.
    OneLine,
    /// As the value of a field.
    Quoted,
    /// Base64 once more.
    Encoded,
    /// Only the lines between first and last.
    Body,
    /// As `name = value` lines.
    Settings,
}

/// A key and a certificate of it, sound both.
pub(crate) fn pair() -> &'static (String, String) {
    static PAIR: OnceLock<(String, String)> = OnceLock::new();
    PAIR.get_or_init(|| {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let pem = key.to_pem(KeyEncoding::Pkcs8).expose().clone();
        let profile = CaProfile::new("Locksmith", time::Duration::days(900));
        let serial = Serial::from_random([1; 20]);
        let ca = CertificateAuthority::self_signed(&profile, key, serial, Clock::System.now());
        (ca.unwrap().certificate_pem(), pem)
    })
}

/// One key of each kind, made once.
pub(crate) fn originals() -> &'static [Original] {
    static ORIGINALS: OnceLock<Vec<Original>> = OnceLock::new();
    ORIGINALS.get_or_init(|| {
        let ours = [
            ("P-256, SEC 1", KeyAlgorithm::EcdsaP256, KeyEncoding::Pkcs1),
            ("P-256, PKCS#8", KeyAlgorithm::EcdsaP256, KeyEncoding::Pkcs8),
            ("P-384, SEC 1", KeyAlgorithm::EcdsaP384, KeyEncoding::Pkcs1),
            ("Ed25519, PKCS#8", KeyAlgorithm::Ed25519, KeyEncoding::Pkcs8),
            ("RSA, PKCS#1", KeyAlgorithm::Rsa2048, KeyEncoding::Pkcs1),
            ("RSA, PKCS#8", KeyAlgorithm::Rsa2048, KeyEncoding::Pkcs8),
        ];
        let ours = ours.map(|(name, algorithm, encoding)| {
            let key = PrivateKey::generate(algorithm).unwrap();
            Original::new(name, key.to_pem(encoding).expose())
        });
        let p521 = openssl(&["ecparam", "-name", "secp521r1", "-genkey", "-noout"], "");
        let plain = &ours[1].pem;
        let pass = ["-aes128", "-passout", "pass:opensesame"];
        let encrypted = openssl(&[&["pkey"][..], &pass].concat(), plain);
        let legacy = openssl(&[&["pkey", "-traditional"][..], &pass].concat(), plain);
        let theirs = [
            Original::new("P-521, SEC 1", &p521),
            Original::new("encrypted", &encrypted),
            Original::new("encrypted, with headers", &legacy),
        ];
        ours.into_iter().chain(theirs).collect()
    })
}

fn openssl(arguments: &[&str], input: &str) -> String {
    use std::io::Write as _;
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

// === impl Original ===

impl Original {
    fn new(name: &'static str, pem: &str) -> Self {
        let body = pem.lines().filter(|line| !line.contains(['-', ':']));
        let body: String = body.collect();
        let der = STANDARD.decode(&body).unwrap();
        let hex = hex(&der);
        // What says of which kind a key is, is at the beginning, and the same in every key.
        let secret = &body[24..];
        // So is the last line, with the padding before it.
        let end = pem.find("-----END").unwrap() / 3 * 4 - 8;
        let texts = [
            secret.to_owned(),
            STANDARD.encode(secret),
            STANDARD.encode(pem)[80..end].to_owned(),
            hex[48..].to_owned(),
            hex[48..].to_ascii_uppercase(),
        ];
        let mut pieces = HashSet::new();
        for text in &texts {
            pieces.extend(text.as_bytes().windows(WINDOW).map(<[u8]>::to_vec));
        }
        for octets in [&der[24..], secret.as_bytes()] {
            pieces.extend(octets.windows(OCTETS).map(<[u8]>::to_vec));
        }
        Self {
            name,
            pem: pem.to_owned(),
            pieces,
        }
    }

    /// A piece of the key that `text` shows: in base64, in hexadecimal, or as a list of octets.
    pub(crate) fn shown_in(&self, text: &str) -> Option<String> {
        let shown = text
            .as_bytes()
            .windows(WINDOW)
            .find(|window| self.pieces.contains(*window));
        let shown = shown.map(|window| String::from_utf8_lossy(window).into_owned());
        shown.or_else(|| {
            let lists = octet_lists(text);
            let mut windows = lists.iter().flat_map(|list| list.windows(OCTETS));
            let found = windows.find(|window| self.pieces.contains(*window));
            found.map(|window| format!("{window:?}"))
        })
    }

    /// The key after all `mutations`.
    pub(crate) fn mutated(&self, mutations: &[Mutation]) -> String {
        mutations.iter().fold(self.pem.clone(), Mutation::apply)
    }
}

fn hex(octets: &[u8]) -> String {
    octets
        .iter()
        .fold(String::new(), |hex, octet| format!("{hex}{octet:02x}"))
}

/// The lists of octets in a text, as `Debug` writes them.
fn octet_lists(text: &str) -> Vec<Vec<u8>> {
    let mut lists = vec![Vec::new()];
    for part in text.split(", ") {
        let digits = part.trim_start_matches(|c: char| !c.is_ascii_digit());
        if digits.len() < part.len() {
            lists.push(Vec::new());
        }
        let end = digits.find(|c: char| !c.is_ascii_digit());
        if let (Ok(octet), Some(list)) = (
            digits[..end.unwrap_or(digits.len())].parse(),
            lists.last_mut(),
        ) {
            list.push(octet);
        }
        if end.is_some() {
            lists.push(Vec::new());
        }
    }
    lists
}

// === impl Mutation ===

impl Mutation {
    fn apply(text: String, mutation: &Self) -> String {
        let lines: Vec<&str> = text.lines().collect();
        let at = |index: &Index| {
            let mut at = index.index(text.len() + 1);
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        match mutation {
            Self::Line(index, line) => {
                let mut lines = lines;
                lines.insert(index.index(lines.len() + 1), line);
                lines.join("\n") + "\n"
            }
            Self::Lines(line) => lines.join(&format!("\n{line}\n")),
            Self::Within(index, what) => {
                let (before, after) = text.split_at(at(index));
                format!("{before}{what}{after}")
            }
            Self::Without(index) if !lines.is_empty() => {
                let mut lines = lines;
                lines.remove(index.index(lines.len()));
                lines.join("\n") + "\n"
            }
            Self::Without(_) => text,
            Self::Cut(index) => text[..at(index)].to_owned(),
            Self::Behead(index) => text[at(index)..].to_owned(),
            Self::Replace(one, other) => text.replace(one, other),
            Self::Twice => format!("{text}{text}"),
            Self::AfterCertificate => format!("{}{text}", pair().0),
            Self::BeforeCertificate => format!("{text}{}", pair().0),
            Self::OneLine => lines.concat(),
            Self::Quoted => format!("tls.key: \"{}\"", lines.join("\\n")),
            Self::Encoded => STANDARD.encode(&text),
            Self::Body => {
                let body = lines.iter().filter(|line| !line.contains("-----"));
                body.copied().collect::<Vec<_>>().join("\n")
            }
            Self::Settings => lines.join(" = x\n"),
        }
    }
}

/// What may be done to a key: up to three things, one after the other.
pub(crate) fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let index = || any::<Index>();
    let line = select(vec![
        "",
        " ",
        "\t",
        "\r",
        "Proc-Type: 4,ENCRYPTED",
        "DEK-Info: AES-128-CBC,00",
        "Comment: by hand",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN EC PRIVATE KEY",
        "-----END CERTIFICATE-----",
        "# a comment",
        "[pgbouncer]",
        "%include /tmp/x",
    ]);
    let what = select(vec![
        " ",
        "\n",
        "\n\n",
        "\r\n\r\n",
        "!",
        ":",
        ": ",
        "=",
        "-----",
        "\"",
        "'",
        "\0",
        "é",
        "\u{feff}",
        "-----BEGIN ",
        "-----END ",
        "{",
        "[",
        "]",
        "`",
        ";",
        "@",
    ]);
    let labels = select(vec![
        ("PRIVATE KEY", "CERTIFICATE"),
        ("EC PRIVATE KEY", "PRIVATE KEY"),
        ("PRIVATE KEY", "EC PRIVATE KEY"),
        ("PRIVATE KEY", "CERTIFICATE REQUEST"),
        ("-----BEGIN", "----BEGIN"),
        ("KEY-----\n", "KEY\n"),
        ("-----END", "-----"),
        ("\n", "\r\n"),
        ("\n", "\r"),
        ("\n", "\n    "),
        ("\n", "\n\n"),
        ("=", ""),
        ("-----", ""),
    ]);
    let one = prop_oneof![
        4 => (index(), line.clone()).prop_map(|(at, line)| Mutation::Line(at, line)),
        1 => line.prop_map(Mutation::Lines),
        3 => (index(), what).prop_map(|(at, what)| Mutation::Within(at, what)),
        1 => index().prop_map(Mutation::Without),
        1 => index().prop_map(Mutation::Cut),
        1 => index().prop_map(Mutation::Behead),
        4 => labels.prop_map(|(one, other)| Mutation::Replace(one, other)),
        2 => select(vec![
            Mutation::Twice, Mutation::AfterCertificate, Mutation::BeforeCertificate,
            Mutation::OneLine, Mutation::Quoted, Mutation::Encoded, Mutation::Body,
            Mutation::Settings,
        ]),
    ];
    proptest::collection::vec(one, 0..4)
}

#[test]
fn what_is_left_of_a_key_is_found_in_every_form() {
    for original in originals() {
        let mut body = original.pem.lines().filter(|line| line.len() == 64);
        let line = body.next_back().unwrap();
        let der = STANDARD.decode(line).unwrap_or_default();
        let hex = hex(&der);
        let tail = &line[line.len() - 20..];
        let forms = [
            format!("invalid header: {line}"),
            format!("…{tail}…"),
            format!("{:?}", tail.as_bytes()),
            format!("{:?}", &der[der.len() - 12..]),
            hex[hex.len() - 20..].to_owned(),
        ];
        for form in forms {
            assert!(
                original.shown_in(&form).is_some(),
                "{}: {form}",
                original.name
            );
        }
        assert_eq!(
            original.shown_in("[77, 72] -----BEGIN EC PRIVATE KEY-----"),
            None
        );
    }
}
