//! `add-tls`, `rotate`, `change-issuer`, `remove-tls`: a request, followed to its end.

use std::time::{Duration, Instant};

use kube::ResourceExt;
use serde::Serialize;

use super::args::{
    AddTlsArgs, ChangeArgs, ChangeIssuerArgs, IssuerArgs, RemoveTlsArgs, RotateArgs,
};
use super::connect::{Connection, connect};
use super::exit::Failure;
use super::follow;
use super::output::Output;
use crate::api::Located;
use crate::api::annotations::STRATEGY;
use crate::api::common::LocalRef;
use crate::api::opsrequest::{PgBouncerOpsRequestSpec, RequestType, TlsRequest};
use crate::api::tls::CERT_MANAGER_GROUP;
use crate::api::{IssuerRef, PgBouncer, PgBouncerOpsRequest, RequestPhase, SslMode};
use crate::cluster::Cluster;
use crate::names::{ObjectRef, name_with_suffix};

/// How long a request is followed. It does not depend on being followed.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// How often a failed step is tried again: the default of the CRD.
const MAX_RETRIES: i32 = 1;

/// A change, in the words of its verb.
pub(super) struct Change {
    /// What becomes the middle of the request's name.
    verb: &'static str,
    /// What is asked for.
    tls: TlsRequest,
    /// What all changing verbs take.
    args: ChangeArgs,
}

/// What became of the request.
#[derive(Serialize)]
struct Report {
    namespace: String,
    request: String,
    phase: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    message: String,
}

impl From<RotateArgs> for Change {
    fn from(args: RotateArgs) -> Self {
        let tls = TlsRequest {
            rotate_certificates: Some(true),
            ..TlsRequest::default()
        };
        Self {
            verb: "rotate-tls",
            tls,
            args: args.change,
        }
    }
}

impl From<AddTlsArgs> for Change {
    fn from(args: AddTlsArgs) -> Self {
        let tls = TlsRequest {
            issuer_ref: Some(args.issuer.into()),
            ssl_mode: args.ssl_mode.or(Some(SslMode::VerifyFull)),
            client_auth_mode: args.client_auth_mode,
            ..TlsRequest::default()
        };
        Self {
            verb: "add-tls",
            tls,
            args: args.change,
        }
    }
}

impl From<ChangeIssuerArgs> for Change {
    fn from(args: ChangeIssuerArgs) -> Self {
        let tls = TlsRequest {
            issuer_ref: Some(args.issuer.into()),
            ..TlsRequest::default()
        };
        Self {
            verb: "change-issuer",
            tls,
            args: args.change,
        }
    }
}

impl From<RemoveTlsArgs> for Change {
    fn from(args: RemoveTlsArgs) -> Self {
        let tls = TlsRequest {
            remove: Some(true),
            client_auth_mode: args.client_auth_mode,
            ..TlsRequest::default()
        };
        Self {
            verb: "remove-tls",
            tls,
            args: args.change,
        }
    }
}

impl From<IssuerArgs> for IssuerRef {
    fn from(args: IssuerArgs) -> Self {
        Self {
            api_group: Some(CERT_MANAGER_GROUP.to_owned()),
            kind: args.kind,
            name: args.name,
        }
    }
}

/// Creates the request and follows it, or prints its plan.
pub(super) async fn carry_out(output: Output, change: impl Into<Change>) -> Result<(), Failure> {
    let change: Change = change.into();
    let connection = connect(&change.args.scope.cluster).await?;
    let cluster = Cluster::new(connection.client.clone());
    let named = change.args.scope.namespace.as_ref();
    let namespace = named.unwrap_or(&connection.namespace).clone();
    let at = ObjectRef::new(namespace, &change.args.name);
    let pooler: PgBouncer = cluster
        .get(&at)
        .await?
        .ok_or_else(|| anyhow::anyhow!("there is no PgBouncer {at}"))?;
    let request = change.request(&at)?;
    if change.args.dry_run {
        return super::plan::print(output, &cluster, &pooler, &request).await;
    }
    let created = cluster.create(&request).await?;
    let report = if change.args.no_wait {
        Report {
            namespace: at.namespace,
            request: created.name_any(),
            phase: RequestPhase::Pending.as_str(),
            seconds: None,
            message: "created".to_owned(),
        }
    } else {
        follow(output, &connection, &created).await?
    };
    let done = change.args.no_wait || report.phase == RequestPhase::Successful.as_str();
    output.result(&report, text)?;
    if done {
        return Ok(());
    }
    let error = anyhow::anyhow!("request {} did not succeed", report.request);
    Err(error.into())
}

async fn follow(
    output: Output,
    connection: &Connection,
    created: &PgBouncerOpsRequest,
) -> anyhow::Result<Report> {
    let namespace = created.home();
    let at = ObjectRef::new(&namespace, created.name_any());
    let begun = Instant::now();
    let progress = output.progress();
    let ended = follow::request(&connection.client, &at, FOLLOW_TIMEOUT, &progress).await;
    progress.finish();
    let ended = ended?;
    let phase = ended.status.as_ref().and_then(|status| status.phase);
    Ok(Report {
        namespace,
        request: at.name,
        phase: phase.map_or("Pending", RequestPhase::as_str),
        seconds: Some((begun.elapsed().as_secs_f64() * 10.0).round() / 10.0),
        message: follow::verdict(&ended),
    })
}

impl Change {
    fn request(&self, pooler: &ObjectRef) -> anyhow::Result<PgBouncerOpsRequest> {
        let suffix = format!("{}-{}", self.verb, super::random_hex::<3>()?);
        let name = name_with_suffix(&pooler.name, &suffix);
        let mut request = PgBouncerOpsRequest::new(
            &name,
            PgBouncerOpsRequestSpec {
                database_ref: LocalRef {
                    name: pooler.name.clone(),
                },
                type_: RequestType::ReconfigureTLS,
                tls: Some(self.tls.clone()),
                restart: None,
                timeout: self.args.timeout.map(|timeout| timeout.to_string()),
                apply: self.args.apply,
                max_retries: MAX_RETRIES,
                update_version: None,
                horizontal_scaling: None,
                vertical_scaling: None,
                configuration: None,
                authentication: None,
            },
        );
        request.metadata.namespace = Some(pooler.namespace.clone());
        if let Some(strategy) = self.args.strategy {
            let annotation = (STRATEGY.to_owned(), strategy.as_str().to_owned());
            request.metadata.annotations = Some([annotation].into());
        }
        Ok(request)
    }
}

fn text(report: &Report) -> String {
    let seconds = report
        .seconds
        .map(|seconds| format!(" after {seconds:.1} s"));
    format!(
        "{}/{}{}: {}",
        report.namespace,
        report.request,
        seconds.unwrap_or_default(),
        report.message
    )
}
