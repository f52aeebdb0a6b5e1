//! `probe`: what an address serves.

use std::net::SocketAddr;

use rustls::pki_types::CertificateDer;
use serde::Serialize;

use super::args::ProbeArgs;
use super::exit::Failure;
use super::output::Output;
use crate::pgbouncer::probe::{self, Served};
use crate::pki::facts::CertificateFacts;
use crate::pki::unusual;

/// What was seen.
#[derive(Serialize)]
struct Report {
    address: SocketAddr,
    tls: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cipher: Option<String>,
    asks_for_client_certificate: bool,
    chain: Vec<CertificateFacts>,
    /// What keeps some clients from connecting, certificate by certificate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unusual: Vec<String>,
}

/// Shows the chain; fails where there is none.
pub(super) async fn print(output: Output, args: &ProbeArgs) -> Result<(), Failure> {
    let (host, _) = args
        .address
        .rsplit_once(':')
        .ok_or_else(|| Failure::usage(format!("`{}` is not HOST:PORT", args.address)))?;
    let mut addresses = tokio::net::lookup_host(&args.address)
        .await
        .map_err(|error| anyhow::Error::new(error).context(format!("cannot find `{host}`")))?;
    let address = addresses
        .next()
        .ok_or_else(|| anyhow::anyhow!("`{host}` has no address"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = args
        .server_name
        .as_deref()
        .or_else(|| host.parse::<std::net::IpAddr>().is_err().then_some(host));
    let served = probe::probe(address, name, args.timeout).await?;
    let report = report(address, served);
    let tls = report.tls;
    output.result(&report, text)?;
    if tls {
        Ok(())
    } else {
        Err(anyhow::anyhow!("{address} does not offer TLS").into())
    }
}

fn report(address: SocketAddr, served: Served) -> Report {
    match served {
        Served::Plaintext => Report {
            address,
            tls: false,
            protocol: None,
            cipher: None,
            asks_for_client_certificate: false,
            chain: Vec::new(),
            unusual: Vec::new(),
        },
        Served::Tls(seen) => Report {
            address,
            tls: true,
            protocol: seen.protocol,
            cipher: seen.cipher,
            asks_for_client_certificate: seen.asks_for_certificate,
            chain: seen
                .chain
                .iter()
                .filter_map(|der| CertificateFacts::read(&CertificateDer::from(der.as_slice())))
                .collect(),
            unusual: unusual(&seen.chain, seen.is_proved),
        },
    }
}

fn unusual(chain: &[Vec<u8>], is_proved: bool) -> Vec<String> {
    let mut found = Vec::new();
    if !is_proved {
        found.push(
            "the server's signature is of a kind that Bouncert cannot check: that it holds the key is not \
             proved"
                .to_owned(),
        );
    }
    for (depth, der) in chain.iter().enumerate() {
        let of = unusual::unusual(der).into_iter();
        found.extend(of.map(|what| format!("certificate {depth}: {what}")));
    }
    found
}

fn text(report: &Report) -> String {
    let mut lines = vec![format!("address      {}", report.address)];
    if !report.tls {
        lines.push("TLS          off: the server answered `N`".to_owned());
        return lines.join("\n");
    }
    let unknown = "not known: the server ended the handshake".to_owned();
    let protocol = report.protocol.clone().unwrap_or(unknown);
    lines.push(format!("protocol     {protocol}"));
    lines.extend(report.cipher.iter().map(|c| format!("cipher       {c}")));
    let asks = if report.asks_for_client_certificate {
        "asked for"
    } else {
        "not asked for"
    };
    lines.push(format!("client cert  {asks}"));
    for (depth, facts) in report.chain.iter().enumerate() {
        lines.push(String::new());
        lines.push(format!("certificate {depth}"));
        lines.extend(certificate(facts));
    }
    for what in &report.unusual {
        lines.push(String::new());
        lines.push(format!("unusual      {what}"));
    }
    lines.join("\n")
}

fn certificate(facts: &CertificateFacts) -> Vec<String> {
    let addresses = facts.ip_addresses.iter().map(ToString::to_string);
    let names: Vec<String> = facts.dns_names.iter().cloned().chain(addresses).collect();
    let mut lines = vec![
        format!("  subject      {}", facts.subject),
        format!("  issuer       {}", facts.issuer),
    ];
    if !names.is_empty() {
        lines.push(format!("  names        {}", names.join(", ")));
    }
    lines.extend([
        format!("  serial       {}", facts.serial),
        format!("  not before   {}", super::instant(facts.not_before)),
        format!("  not after    {}", super::instant(facts.not_after)),
        format!("  key          {}", facts.key),
        format!("  fingerprint  {}", facts.fingerprint),
    ]);
    lines
}
