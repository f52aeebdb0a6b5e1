//! `policy check`: what policies say of the certificates that manifests ask for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use kube::ResourceExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::args::PolicyCheckArgs;
use super::exit::{Exit, Failure};
use super::output::Output;
use crate::api::Located;
use crate::api::certmanager::CertificateRequest;
use crate::api::{PgBouncer, PgBouncerOpsRequest};
use crate::blueprint::certificates::{LoadBalancer, wanted};
use crate::blueprint::defaults::{IssuerKind, complete};
use crate::material::policy_request;
use crate::names::Alias;
use crate::opaque::{self, YamlTrouble};
use crate::ops::request::{parse, target_state, with_state};
use crate::policy::{Policies, Request, Verdict, Violation};

/// The answer to all certificates of a file.
#[derive(Serialize)]
struct Report {
    allowed: bool,
    certificates: Vec<Judged>,
}

/// The answer to one certificate.
#[derive(Serialize)]
struct Judged {
    object: String,
    certificate: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    violations: Vec<Violation>,
}

/// Judges every certificate of the file; fails if one is denied.
pub(super) fn check(output: Output, args: &PolicyCheckArgs) -> Result<(), Failure> {
    let policies = match args.policies.as_slice() {
        [] => Policies::builtin(),
        paths => read(paths)?,
    };
    let manifests = Manifests::read(&args.file)?;
    let mut certificates = Vec::new();
    for (object, request) in manifests.requests()? {
        certificates.push(judge(&policies, object, &request));
    }
    let n_denied = certificates.iter().filter(|c| !c.allowed).count();
    let n_all = certificates.len();
    let report = Report {
        allowed: n_denied == 0,
        certificates,
    };
    output.result(&report, text)?;
    if n_denied == 0 {
        return Ok(());
    }
    Err(anyhow!("{n_denied} of {n_all} certificates would be denied").into())
}

/// The policies of a folder, or those that are built in.
pub(super) fn in_force(folder: Option<&Path>) -> Result<Policies, Failure> {
    folder.map_or_else(
        || Ok(Policies::builtin()),
        |folder| read(&[folder.to_owned()]),
    )
}

/// Reads policies from files, and from the YAML files of folders.
fn read(paths: &[PathBuf]) -> Result<Policies, Failure> {
    let mut policies = Policies::default();
    for path in paths {
        for file in files(path).map_err(|error| Failure::new(Exit::Usage, error))? {
            let policy = read_file(&file).with_context(|| format!("cannot use {}", file.display()));
            let joined = policy.and_then(|more| Ok(policies.join(more)?));
            policies = joined.map_err(|error| Failure::new(Exit::Usage, error))?;
        }
    }
    if policies.is_empty() {
        let paths: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
        let paths = paths.join(", ");
        return Err(Failure::usage(format!("there is no policy in {paths}")));
    }
    Ok(policies)
}

fn read_file(path: &Path) -> anyhow::Result<Policies> {
    Ok(Policies::parse(&fs::read_to_string(path)?)?)
}

fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let file = entry?.path();
        let extension = file.extension().and_then(|extension| extension.to_str());
        if file.is_file() && matches!(extension, Some("yaml" | "yml" | "json")) {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

fn judge(policies: &Policies, object: String, request: &Request) -> Judged {
    let certificate = request.name.clone();
    match policies.review(request) {
        Verdict::Allowed { by } => Judged {
            object,
            certificate,
            allowed: true,
            by: Some(by),
            violations: Vec::new(),
        },
        Verdict::Denied { violations } => Judged {
            object,
            certificate,
            allowed: false,
            by: None,
            violations,
        },
    }
}

fn text(report: &Report) -> String {
    if report.certificates.is_empty() {
        return "no certificate is asked for".to_owned();
    }
    let mut lines = Vec::new();
    for judged in &report.certificates {
        let Judged {
            object,
            certificate,
            by,
            violations,
            ..
        } = judged;
        match by {
            Some(by) => lines.push(format!("allowed  {certificate}  {object}  by {by}")),
            None => lines.push(format!("denied   {certificate}  {object}")),
        }
        lines.extend(
            violations
                .iter()
                .map(|violation| format!("         {violation}")),
        );
    }
    lines.join("\n")
}

// === manifests ===

/// The objects of a file.
#[derive(Default)]
struct Manifests {
    poolers: Vec<PgBouncer>,
    changes: Vec<PgBouncerOpsRequest>,
    requests: Vec<CertificateRequest>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

impl Manifests {
    fn read(path: &Path) -> Result<Self, Failure> {
        let wrong = |error| Failure::new(Exit::Usage, error);
        let at = || format!("cannot read {}", path.display());
        let text = fs::read_to_string(path).with_context(at).map_err(wrong)?;
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text)
            .map_err(YamlTrouble::from)
            .with_context(at)
            .map_err(wrong)?;
        let mut found = Self::default();
        for document in documents {
            found.add(document).with_context(at).map_err(wrong)?;
        }
        if found.poolers.is_empty() && found.changes.is_empty() && found.requests.is_empty() {
            return Err(Failure::usage(format!(
                "{} has no PgBouncer, PgBouncerOpsRequest or CertificateRequest",
                path.display()
            )));
        }
        Ok(found)
    }

    fn add(&mut self, mut document: Value) -> anyhow::Result<()> {
        let kind = document["kind"].as_str().unwrap_or_default().to_owned();
        if document["metadata"].is_object() && document["metadata"]["namespace"].is_null() {
            document["metadata"]["namespace"] = json!("default");
        }
        match kind.as_str() {
            "PgBouncer" => self.poolers.push(object(document)?),
            "PgBouncerOpsRequest" => self.changes.push(object(document)?),
            "CertificateRequest" => self.requests.push(object(document)?),
            "Namespace" => {
                let name = document["metadata"]["name"].as_str().unwrap_or_default();
                let labels = document["metadata"]["labels"].clone();
                let labels = serde_json::from_value(labels).unwrap_or_default();
                self.namespaces.insert(name.to_owned(), labels);
            }
            _ => {}
        }
        Ok(())
    }

    /// What every object asks for. A request for a change is judged by what it makes of its
    /// PgBouncer; where the file does not have that, by what the request says alone.
    fn requests(&self) -> anyhow::Result<Vec<(String, Request)>> {
        let mut found = Vec::new();
        for pooler in &self.poolers {
            let of = named("PgBouncer", pooler);
            let requests = certificates(pooler, &Alias::ALL).with_context(|| of.clone())?;
            found.extend(requests.into_iter().map(|request| (of.clone(), request)));
        }
        for change in &self.changes {
            let of = named("PgBouncerOpsRequest", change);
            let requests = self.changed(change).with_context(|| of.clone())?;
            found.extend(requests.into_iter().map(|request| (of.clone(), request)));
        }
        for asked in &self.requests {
            let of = named("CertificateRequest", asked);
            let request = Request::try_from(asked).with_context(|| of.clone())?;
            found.push((of, request));
        }
        for (_, request) in &mut found {
            if let Some(labels) = self.namespaces.get(&request.namespace) {
                request.namespace_labels.clone_from(labels);
            }
        }
        Ok(found)
    }

    fn changed(&self, change: &PgBouncerOpsRequest) -> anyhow::Result<Vec<Request>> {
        let (namespace, name) = (change.namespace(), &change.spec.database_ref.name);
        let present = self
            .poolers
            .iter()
            .find(|pooler| pooler.namespace() == namespace && pooler.name_any() == *name);
        let names_issuer = change
            .spec
            .tls
            .as_ref()
            .is_some_and(|tls| tls.issuer_ref.is_some());
        let mut pooler = match present {
            Some(pooler) => pooler.clone(),
            None if names_issuer => object(json!({
                "metadata": {"name": name, "namespace": namespace},
                "spec": {
                    "version": "", "sslMode": "verify-full",
                    "database": {"databaseName": "", "databaseRef": {"name": "", "namespace": ""}},
                },
            }))?,
            None => {
                return Err(anyhow!(
                    "its certificates are those of PgBouncer {name}, which has to be in the file too"
                ));
            }
        };
        let spec = complete(&pooler.spec, name, IssuerKind::Private);
        let parsed = parse(&change.spec, &spec)?;
        let state = target_state(name, &spec, &parsed, IssuerKind::Private);
        pooler.spec = with_state(&spec, &state);
        certificates(&pooler, &parsed.aliases_to_issue())
    }
}

fn certificates(pooler: &PgBouncer, aliases: &[Alias]) -> anyhow::Result<Vec<Request>> {
    let mut pooler = pooler.clone();
    pooler.spec = complete(&pooler.spec, &pooler.name_any(), IssuerKind::Private);
    let namespace = pooler.home();
    let wanted = wanted(&pooler, &LoadBalancer::default())?;
    let asked = wanted
        .iter()
        .filter(|wanted| aliases.contains(&wanted.alias));
    Ok(asked
        .map(|wanted| policy_request(&namespace, wanted))
        .collect())
}

fn object<K: DeserializeOwned>(document: Value) -> anyhow::Result<K> {
    serde_json::from_value(document).map_err(|error| anyhow!(opaque::shape(&error)))
}

fn named<K: ResourceExt>(kind: &str, object: &K) -> String {
    let namespace = object.home();
    format!("{kind} {namespace}/{}", object.name_any())
}
