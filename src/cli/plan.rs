//! `--dry-run`: what a request would issue, publish and restart, in which order.

use serde::Serialize;

use super::exit::Failure;
use super::output::Output;
use crate::api::{PgBouncer, PgBouncerOpsRequest};
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::material::Materials;
use crate::names::Alias;
use crate::ops::plan::{Plan, Step};
use crate::ops::planner;
use crate::surroundings;

/// The plan, as people and programs read it.
#[derive(Serialize)]
struct Report {
    namespace: String,
    pooler: String,
    issues: Vec<Issue>,
    restarts: Vec<String>,
    steps: Vec<StepReport>,
}

/// A certificate that would be issued.
#[derive(Serialize)]
struct Issue {
    alias: Alias,
    revision: u32,
    issuer: String,
}

/// One step.
#[derive(Serialize)]
struct StepReport {
    step: String,
    does: String,
}

/// Prints the plan; changes nothing.
pub(super) async fn print(
    output: Output,
    cluster: &Cluster,
    pooler: &PgBouncer,
    request: &PgBouncerOpsRequest,
) -> Result<(), Failure> {
    let kind = surroundings::workload_kind(cluster).await?;
    // The namespace of ClusterIssuers' Secrets matters to whoever issues.
    let materials = Materials::new(cluster.clone(), Clock::System, "");
    let plan = planner::plan(cluster, &materials, kind, request, pooler).await?;
    output.result(&Report::of(&plan), text)?;
    Ok(())
}

impl Report {
    fn of(plan: &Plan) -> Self {
        let issues = plan.issue.iter().map(|issuance| Issue {
            alias: issuance.alias,
            revision: issuance.revision.get(),
            issuer: format!("{}/{}", issuance.issuer.kind, issuance.issuer.name),
        });
        let rolled = plan.steps.iter().filter_map(|step| match step {
            Step::Roll(pod) => Some(pod.clone()),
            _ => None,
        });
        let steps = plan.steps.iter().map(|step| StepReport {
            step: step.to_string(),
            does: does(plan, step),
        });
        Self {
            namespace: plan.database.at.namespace.clone(),
            pooler: plan.database.at.name.clone(),
            issues: issues.collect(),
            restarts: rolled.collect(),
            steps: steps.collect(),
        }
    }
}

/// What a step does, in words.
fn does(plan: &Plan, step: &Step) -> String {
    match step {
        Step::Pause => "the provisioner leaves the PgBouncer alone".to_owned(),
        Step::Issue(alias) => {
            let planned = plan.issue.iter().find(|issuance| issuance.alias == *alias);
            planned.map_or_else(String::new, |issuance| {
                let (kind, name) = (&issuance.issuer.kind, &issuance.issuer.name);
                let revision = issuance.revision;
                format!("{kind} {name} signs revision {revision} of {alias}")
            })
        }
        Step::Stage => "publish trust in the old and the new issuer".to_owned(),
        Step::HandOut => "publish the new client and exporter material".to_owned(),
        Step::Switch => "publish server material, configuration and pod template".to_owned(),
        Step::Surge => format!("start {} and prove it", plan.surge_pod()),
        Step::Roll(pod) => {
            let canary = if plan.is_canary(pod) {
                ", with a login before the next"
            } else {
                ""
            };
            format!("drain {pod}, restart it, see it serve what was planned{canary}")
        }
        Step::Unsurge => format!("drain {} and take it away", plan.surge_pod()),
        Step::Prove => "handshake with every pod and through the Service; log in".to_owned(),
        Step::Commit => "write the change into the PgBouncer's spec".to_owned(),
        Step::Retire => "delete what nobody needs any more".to_owned(),
        Step::Resume => "the provisioner takes over again".to_owned(),
    }
}

fn text(report: &Report) -> String {
    let at = format!("{}/{}", report.namespace, report.pooler);
    if report.steps.is_empty() {
        return format!("{at}: nothing to do");
    }
    let widest = report.steps.iter().map(|step| step.step.len()).max();
    let widest = widest.unwrap_or_default();
    let steps = report.steps.iter().enumerate().map(|(n, step)| {
        let (name, does) = (&step.step, &step.does);
        format!("{:>3}. {name:<widest$}  {does}", n + 1)
    });
    let steps: Vec<String> = steps.collect();
    format!(
        "{at}: {} certificates issued, {} pods restarted, undone in reverse order if a step fails\n{}",
        report.issues.len(),
        report.restarts.len(),
        steps.join("\n")
    )
}
