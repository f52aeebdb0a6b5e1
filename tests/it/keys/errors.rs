//! What users are told when something is wrong: every text is in `docs/errors.md`, and what is said of
//! documents that others write names the object, the field, what is there and what to write.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bouncert::causes::chain;
use bouncert::issuer::{IssuerName, Signer};
use bouncert::names::ObjectRef;
use bouncert::pki::profile::Pointers;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use super::mutant::{Original, originals, pair};

/// The beginning of the golden file.
const HEAD: &str = "# Errors\n\n\
    Every text of an error, by the module and the type it belongs to. `{…}` stands for a name, a number or\n\
    the like; what caused an error follows it after a colon. A text that consists of its cause alone is\n\
    left out. This file is made by a test (`GOLDEN=update cargo test --test it -- keys::errors`).\n";

fn golden(path: &Path, document: &str) {
    if std::env::var("GOLDEN").is_ok_and(|wish| wish == "update") {
        fs::write(path, document).unwrap();
    }
    let kept = fs::read_to_string(path).unwrap_or_default();
    let at = kept
        .lines()
        .zip(document.lines())
        .find(|(kept, fresh)| kept != fresh);
    assert!(
        kept == document,
        "{} is out of date ({at:?}): run GOLDEN=update cargo test --test it -- keys::errors",
        path.display()
    );
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The texts of a source file's error types: type, variant, text.
fn texts(source: &str) -> Vec<(String, String, String)> {
    let source = source.split("\n#[cfg(test)]").next().unwrap();
    let mut found = Vec::new();
    let (mut name, mut rest) = (String::new(), source);
    while let Some(at) = rest.find("#[error(") {
        let before = &rest[..at];
        let after = &rest[at + "#[error(".len()..];
        let end = attribute_end(after);
        let (attribute, following) = after.split_at(end);
        let named = |keyword: &str, text: &str| {
            let at = text.rfind(keyword)?;
            Some(word(&text[at + keyword.len()..]))
        };
        name = named("enum ", before).unwrap_or(name);
        let following = following.trim_start_matches([')', ']']).trim_start();
        let variant = following.strip_prefix("pub struct ").map_or_else(
            || word(following),
            |text| {
                name = word(text);
                String::new()
            },
        );
        if let Some(text) = literal(attribute) {
            found.push((name.clone(), variant, text));
        }
        rest = &after[end..];
    }
    found
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric()).collect()
}

/// Where the parenthesis of an attribute closes.
fn attribute_end(text: &str) -> usize {
    let (mut depth, mut quoted, mut escaped) = (1, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    panic!("an attribute does not end: {text}")
}

/// The first string literal of an attribute, on one line; `None` for `transparent`.
fn literal(attribute: &str) -> Option<String> {
    let start = attribute.find('"')? + 1;
    let mut text = String::new();
    let mut chars = attribute[start..].chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => match chars.next()? {
                '\n' => {
                    let rest = chars.as_str().trim_start();
                    chars = rest.chars();
                }
                escaped => text.push(escaped),
            },
            c => text.push(c),
        }
    }
    (!text.replace("{0}", "").is_empty()).then_some(text)
}

#[test]
fn every_text_of_an_error_is_in_the_list() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    sources(&root.join("src"), &mut paths);
    let mut by_module: BTreeMap<String, Vec<(String, String, String)>> = BTreeMap::new();
    for path in paths {
        let module = path
            .strip_prefix(root.join("src"))
            .unwrap()
            .with_extension("");
        let module = module.to_string_lossy().replace('/', "::");
        let module = module
            .trim_end_matches("::mod")
            .trim_end_matches("::error")
            .to_owned();
        let found = texts(&fs::read_to_string(&path).unwrap());
        if !found.is_empty() && !module.ends_with("tests") {
            by_module.entry(module).or_default().extend(found);
        }
    }
    let mut document = HEAD.to_owned();
    for (module, texts) in &by_module {
        let mut last = "";
        for (name, variant, text) in texts {
            if name != last {
                let _ = write!(document, "\n## `{module}::{name}`\n\n");
                last = name;
            }
            let bold = if variant.is_empty() {
                String::new()
            } else {
                format!("**{variant}**: ")
            };
            let _ = writeln!(document, "- {bold}{text}");
            assert!(
                !text.ends_with('.'),
                "{name}::{variant}: a text ends without a full stop"
            );
            assert!(!text.contains("  "), "{name}::{variant}: {text}");
        }
    }
    assert!(by_module.len() > 40, "{} modules", by_module.len());
    golden(&root.join("docs/errors.md"), &document);
}

fn key(name: &str) -> &'static Original {
    originals()
        .iter()
        .find(|original| original.name == name)
        .unwrap()
}

/// What others write into the Secret of a CA, and what is said of it.
#[test]
fn a_mistake_in_the_secret_of_a_ca_names_the_secret_the_field_and_what_is_there() {
    let (certificate, sound) = pair();
    let p256 = &key("P-256, SEC 1").pem;
    let text = |text: &str| text.to_owned();
    let cases = [
        (
            certificate.clone(),
            certificate.clone(),
            "tls.key: cannot read a private key: no private key in the document (it has CERTIFICATE): write a PEM document that has one",
        ),
        (
            sound.clone(),
            certificate.clone(),
            "tls.crt: no certificate in the document (it has PRIVATE KEY): write a PEM document that has one",
        ),
        (
            certificate.clone(),
            text("ledger"),
            "tls.key: cannot read a private key: no private key in the document (it has no PEM block): write a PEM document that has one",
        ),
        (
            certificate.clone(),
            p256.clone(),
            "tls.key is not the key of CN=Locksmith, the first certificate in tls.crt: store the pair that belongs together",
        ),
        (
            certificate.clone(),
            p256.replace("-----END", "----END"),
            "tls.key: cannot read a private key: not a PEM document: block 1, which begins in line 1, has no -----END line",
        ),
        (
            certificate.clone(),
            p256.replace("END EC", "END RSA"),
            "tls.key: cannot read a private key: not a PEM document: block 1, which begins in line 1, has a last line that does not fit its first line",
        ),
        (
            certificate.clone(),
            p256.replacen("\nMHc", "\n#Hc", 1),
            "tls.key: cannot read a private key: not a PEM document: block 1, which begins in line 1, has characters that are not base64",
        ),
        (
            certificate.clone(),
            p256.replace("EC PRIVATE", "RSA PRIVATE"),
            "tls.key: the private key is damaged: ",
        ),
        (
            certificate.clone(),
            key("encrypted").pem.clone(),
            "tls.key: the private key is encrypted, and encrypted keys are not supported: store it without a passphrase, as `openssl pkey` writes it",
        ),
        (
            certificate.clone(),
            key("encrypted, with headers").pem.clone(),
            "tls.key: the private key is encrypted, and encrypted keys are not supported: store it without a passphrase, as `openssl pkey` writes it",
        ),
        (
            certificate.clone(),
            key("P-521, SEC 1").pem.clone(),
            "tls.key: a private key of kind ECDSA P-521 is not supported: use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 4096 bits",
        ),
    ];
    for (crt, key, expected) in cases {
        let (crt, key) = (STANDARD.encode(crt), STANDARD.encode(key));
        let data = json!({"metadata": {"name": "mint"}, "data": {"tls.crt": crt, "tls.key": key}});
        let secret: Secret = serde_json::from_value(data).unwrap();
        let name = IssuerName {
            kind: "Issuer".to_owned(),
            namespace: "treasury".to_owned(),
            name: "notes".to_owned(),
        };
        let at = ObjectRef::new("treasury", "mint");
        let error = Signer::ca(name, at, Some(&secret), Pointers::default()).unwrap_err();
        let told = chain(&error);
        let begins = "the Secret treasury/mint of Issuer treasury/notes holds no usable CA: ";
        assert!(told.starts_with(begins), "{told}");
        assert!(told.contains(expected), "{told}\nlacks: {expected}");
    }
}
