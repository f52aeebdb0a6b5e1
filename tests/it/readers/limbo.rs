//! The vectors of x509-limbo, where a copy of them is: `BOUNCERT_LIMBO` names the directory that holds
//! `limbo.jsonl`. `limbo.txt` lists where our verdict is another than the expected one, and why.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use bouncert::pki::bundle::TrustBundle;
use bouncert::pki::chain::{CertificateChain, Expectation};
use bouncert::pki::profile::LeafUsage;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Our verdict on one vector.
fn judge(vector: &Value, now: OffsetDateTime) -> Result<(), String> {
    let documents = |field: &str| -> String {
        let all = vector[field].as_array().into_iter().flatten();
        all.filter_map(Value::as_str).collect()
    };
    let peer = vector["peer_certificate"].as_str().unwrap_or_default();
    let served = format!("{peer}\n{}", documents("untrusted_intermediates"));
    let chain = CertificateChain::from_pem(&served).map_err(|error| error.to_string())?;
    let bundle = TrustBundle::from_pem(&documents("trusted_certs"));
    let bundle = bundle.map_err(|error| error.to_string())?;
    let at = vector["validation_time"].as_str();
    let at = at.map(|at| OffsetDateTime::parse(at, &Rfc3339).unwrap());
    let name = &vector["expected_peer_name"];
    let value = name["value"].as_str().map(str::to_owned);
    let (dns_names, ip_addresses): (Vec<String>, Vec<IpAddr>) = match name["kind"].as_str() {
        Some("DNS") => (value.into_iter().collect(), Vec::new()),
        Some("IP") => (
            Vec::new(),
            value.iter().map(|value| value.parse().unwrap()).collect(),
        ),
        _ => (Vec::new(), Vec::new()),
    };
    let wanted = Expectation {
        usage: LeafUsage::Server,
        common_name: None,
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        now: at.unwrap_or(now),
    };
    let facts = chain
        .verify(&bundle, &wanted)
        .map_err(|verdict| bouncert::causes::chain(&verdict))?;
    // A vector names what a client connects to, which a wildcard may cover.
    let is_covered = |name: &String| {
        facts.dns_names.iter().any(|found| {
            found.eq_ignore_ascii_case(name)
                || found.strip_prefix("*.").is_some_and(|parent| {
                    name.split_once('.').is_some_and(|(_, rest)| rest == parent)
                })
        })
    };
    let missing: Vec<&String> = dns_names.iter().filter(|name| !is_covered(name)).collect();
    if !missing.is_empty() {
        return Err(format!("lacks {missing:?}"));
    }
    match ip_addresses
        .iter()
        .find(|address| !facts.ip_addresses.contains(address))
    {
        None => Ok(()),
        Some(address) => Err(format!("lacks {address}")),
    }
}

#[test]
fn disagreements_with_x509_limbo_are_listed_with_their_reasons() {
    let Some(directory) = std::env::var_os("BOUNCERT_LIMBO") else {
        println!("NOT RUN: BOUNCERT_LIMBO does not name a directory with x509-limbo's limbo.jsonl");
        return;
    };
    let vectors = fs::read_to_string(Path::new(&directory).join("limbo.jsonl")).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/readers/limbo.txt");
    let held = fs::read_to_string(&golden).unwrap_or_default();
    let reason_of = |id: &str| {
        let lines = held.lines().filter_map(|line| line.split_once(" | "));
        let mut known = lines.filter(|(known, _)| known.split(' ').next() == Some(id));
        known.next().map(|(_, reason)| reason.to_owned())
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "vectors without a time mean the present"
    )]
    let now = OffsetDateTime::now_utc();
    let mut found = Vec::new();
    for line in vectors.lines() {
        let vector: Value = serde_json::from_str(line).unwrap();
        let id = vector["id"].as_str().unwrap();
        let is_success = vector["expected_result"] == "SUCCESS";
        let verdict = judge(&vector, now);
        if verdict.is_ok() == is_success {
            continue;
        }
        let reason = reason_of(id).unwrap_or_else(|| "REASON MISSING".to_owned());
        let ours = match &verdict {
            Ok(()) => "accepted".to_owned(),
            Err(_) => "refused".to_owned(),
        };
        if reason == "REASON MISSING" {
            let about = vector["description"].as_str().unwrap_or_default();
            println!(
                "{id}: {ours}: {verdict:?}\n    {}",
                about.replace('\n', " ")
            );
        }
        found.push(format!("{id} {ours} | {reason}\n"));
    }
    let found = found.concat();
    if std::env::var_os("GOLDEN").is_some_and(|value| value == "update") {
        fs::write(&golden, &found).unwrap();
    }
    assert_eq!(held, found, "GOLDEN=update, then write the reasons");
    assert!(!found.contains("REASON MISSING"), "{found}");
}
