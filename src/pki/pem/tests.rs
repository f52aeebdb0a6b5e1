use proptest::prelude::*;

use super::*;
use crate::pki::key::{KeyEncoding, PrivateKey};
use crate::pki::testing::{key, root};

fn contents(text: &str) -> Vec<(Label, Vec<u8>)> {
    let blocks = blocks(text).unwrap().blocks;
    blocks
        .iter()
        .map(|block| (block.label, block.contents().to_vec()))
        .collect()
}

/// A key as a person or a tool may have stored it.
fn spellings(pem: &str) -> Vec<String> {
    let lines: Vec<&str> = pem.lines().collect();
    let mut spellings = vec![
        pem.replace('\n', "\r\n"),
        pem.replace('\n', "\r"),
        format!("\u{feff}{pem}"),
        format!("Bag Attributes\n    friendlyName: ledger\nKey Attributes: <None>\n{pem}"),
        format!("{pem}{pem}"),
        pem.trim_end().to_owned(),
        pem.replace('\n', "\n    "),
        pem.replace('\n', "\t \n"),
        lines.concat(),
        lines.join(" "),
        pem.replacen('\n', "\nComment: stored by hand\n", 1),
        pem.replacen('\n', "\nComment: stored by hand\nX-Origin: vault\n\n", 1),
        pem.replacen('\n', "\r\nComment: stored by hand\r\n\r\n", 1),
        pem.replacen('\n', "\nComment: stored by hand\n \t\n", 1),
    ];
    for at in 1..lines.len() {
        for blank in ["", " ", "\r"] {
            let mut lines = lines.clone();
            lines.insert(at, blank);
            spellings.push(lines.join("\n"));
        }
    }
    let body = lines[1..lines.len() - 1].concat();
    let one_line = [lines[0], &body, lines[lines.len() - 1]];
    spellings.extend([one_line.join("\n"), one_line.concat()]);
    spellings
}

#[test]
fn a_key_is_read_however_it_is_spelt() {
    for encoding in [KeyEncoding::Pkcs1, KeyEncoding::Pkcs8] {
        let key = key();
        let pem = key.to_pem(encoding);
        for spelling in spellings(pem.expose()) {
            let read = PrivateKey::from_pem(&spelling);
            let read = read.unwrap_or_else(|error| panic!("{error}:\n{spelling}"));
            assert_eq!(read.public_key(), key.public_key(), "{spelling}");
        }
    }
}

#[test]
fn certificates_are_read_however_they_are_spelt() {
    let pem = root("Spelling").certificate_pem();
    let [certificate] = read_certificates(&pem).unwrap().try_into().unwrap();
    for spelling in spellings(&pem) {
        assert_eq!(read_certificates(&spelling).unwrap()[0], certificate);
    }
}

#[test]
fn what_is_wrong_has_a_place() {
    let pem = write_block("PRIVATE KEY", &[7; 60]);
    let wrong = |text: &str| blocks(text).map(drop).unwrap_err().to_string();
    let second = |first: &str, second: &str| format!("{pem}{}", pem.replacen(first, second, 1));
    let at = "not a PEM document: block 2, which begins in line 5, ";
    for (text, expected) in [
        (
            second("KEY-----\n", "KEY\n"),
            "has a first line that does not end in -----",
        ),
        (
            second("END PRIVATE", "END PUBLIC"),
            "has a last line that does not fit its first line",
        ),
        (second("Bw", "!w"), "has characters that are not base64"),
        (second("Bw", "w"), "has base64 that is incomplete"),
    ] {
        assert_eq!(wrong(&text), format!("{at}{expected}"), "{text}");
    }
    for damaged in [
        "----BEGIN PRIVATE",
        "-----BEGN PRIVATE",
        "-----BEGINPRIVATE",
    ] {
        let error = wrong(&second("-----BEGIN PRIVATE", damaged));
        assert!(
            error.contains("block 2") && error.contains("no first line"),
            "{error}"
        );
    }
    let unfinished = second("-----END", "-----");
    assert_eq!(wrong(&unfinished), format!("{at}has no -----END line"));
}

#[test]
fn no_block_is_lost_without_a_word() {
    let (pem, key) = (root("Whole").certificate_pem(), key());
    let der = read_certificates(&pem).unwrap();
    let block = |label: &str| write_block(label, &der[0]);
    // The last of three roots breaks off, wherever it does.
    let begun = block("CERTIFICATE");
    let three = format!("{pem}{pem}{begun}");
    assert_eq!(read_certificates(&three).unwrap().len(), 3);
    for cut in [12, 30, begun.len() / 2, begun.len() - 20, begun.len() - 3] {
        let broken = format!("{pem}{pem}{}", &begun[..cut]);
        let error = read_certificates(&broken).unwrap_err();
        assert!(
            matches!(error, PemError::Malformed { block: 3, .. }),
            "{cut}: {error}"
        );
    }
    for (label, told) in [
        (
            "TRUSTED CERTIFICATE",
            "is TRUSTED CERTIFICATE, and certificates are wanted: write it as",
        ),
        (
            "PKCS7",
            "is PKCS7, and certificates are wanted: write its certificates one by one",
        ),
        ("X509 CRL", "is X509 CRL"),
        ("CERTIFICATE REQUEST", "is CERTIFICATE REQUEST"),
        ("PUBLIC KEY", "is PUBLIC KEY"),
        ("certificate", "is a block of another kind"),
        ("CERTIFICATE ", "is a block of another kind"),
    ] {
        let at = format!(
            "block 2 of the document, which begins in line {}, ",
            pem.lines().count() + 1
        );
        for text in [
            format!("{pem}{}", block(label)),
            format!("{pem}{}{pem}", block(label)),
        ] {
            let error = read_certificates(&text).unwrap_err().to_string();
            assert!(
                error.starts_with(&at) && error.contains(told),
                "{label}: {error}"
            );
        }
    }
    // A key may stand beside, as many tools write both into one document.
    let pair = format!("{}{pem}", key.to_pem(KeyEncoding::Pkcs1).expose());
    assert_eq!(read_certificates(&pair).unwrap(), der);
    assert_eq!(
        PrivateKey::from_pem(&pair).unwrap().public_key(),
        key.public_key()
    );
}

#[test]
fn of_two_keys_none_is_chosen() {
    let [one, other] = [key(), key()].map(|key| key.to_pem(KeyEncoding::Pkcs8));
    let (one, other) = (one.expose(), other.expose());
    PrivateKey::from_pem(&format!("{one}{one}")).unwrap();
    let error = PrivateKey::from_pem(&format!("{one}{other}")).unwrap_err();
    let PemError::Two { wanted, line } = (match error {
        crate::pki::key::KeyError::Document(error) => error,
        other => panic!("{other}"),
    }) else {
        panic!("{error}")
    };
    assert_eq!((wanted, line), ("private key", one.lines().count() + 1));
}

#[test]
fn a_label_is_told_only_if_it_is_known() {
    for (name, told) in [
        ("X509 CRL", "X509 CRL"),
        ("NEW CERTIFICATE REQUEST", "CERTIFICATE REQUEST"),
        ("MHcCAQEEIKx7", "a block of another kind"),
        ("MHcCAQEEIKx7 PRIVATE KEY", "a private key of another kind"),
    ] {
        assert_eq!(Label::read(name).text(), told);
    }
    let pem = write_block("PUBLIC KEY", &[7; 60]);
    let error = read_certificates(&pem).unwrap_err().to_string();
    assert_eq!(
        error,
        "block 1 of the document, which begins in line 1, is PUBLIC KEY, and certificates are wanted: \
         remove it, or write CERTIFICATE if it is one"
    );
}

proptest! {
    /// The reader that was here before; it read no blank lines.
    #[test]
    fn whatever_the_pem_crate_reads_is_read_alike(
        blocks in proptest::collection::vec(("[A-Z]{1,9}( KEY)?", proptest::collection::vec(any::<u8>(), 0..99)), 0..4),
        between in "[ a-z:\n]{0,9}",
        end in prop::sample::select(vec!["\n", "\r\n", " \n"]),
    ) {
        let text: String = blocks
            .iter()
            .map(|(label, der)| write_block(label, der).replace('\n', end) + &between)
            .collect();
        let known: Vec<_> = ::pem::parse_many(&text).unwrap().into_iter()
            .map(|block| (Label::read(block.tag()), block.into_contents()))
            .collect();
        prop_assert_eq!(contents(&text), known);
    }
}
