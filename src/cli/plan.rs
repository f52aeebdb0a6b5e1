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
use crate::ops::planner::Planner;
use crate::surroundings;

/// The plan, as people and programs read it.
#[derive(Serialize)]
struct Report {
    namespace: String,
    pooler: String,
    issues: Vec<Issue>,
    restarts: Vec<String>,
    reloads: Vec<String>,
    /// Why so, where the strategy left a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<String>,
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
    let namespace = pooler.metadata.namespace.as_deref().unwrap_or_default();
    let kind = surroundings::workload_kind(cluster, namespace).await?;
    // The namespace of ClusterIssuers' Secrets matters to whoever issues.
    let materials = Materials::new(cluster.clone(), Clock::System, "");
    let planner = Planner {
        cluster,
        materials: &materials,
        kind,
    };
    let plan = planner.plan(request, pooler).await?;
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
        let reloaded = plan.steps.iter().filter_map(Step::reloads);
        let rolled = plan.steps.iter().flat_map(Step::rolls);
        let steps = plan.steps.iter().zip(plan.outline());
        let steps = steps.map(|(step, does)| StepReport {
            step: step.to_string(),
            does,
        });
        Self {
            namespace: plan.namespace.clone(),
            pooler: plan.database.name.clone(),
            issues: issues.collect(),
            restarts: rolled.collect(),
            reloads: reloaded.collect(),
            because: plan.choice.why.clone(),
            steps: steps.collect(),
        }
    }
}

fn text(report: &Report) -> String {
    let at = format!("{}/{}", report.namespace, report.pooler);
    if report.steps.is_empty() {
        return format!("{at}: nothing to do");
    }
    let steps = report.steps.iter().enumerate();
    let steps = steps.map(|(n, step)| format!("{:>3}. {}", n + 1, step.does));
    let steps: Vec<String> = steps.collect();
    let pods = if report.reloads.is_empty() {
        format!("{} pods restarted", report.restarts.len())
    } else {
        format!("{} pods reloaded", report.reloads.len())
    };
    let because = report.because.iter().map(|why| format!("\n     {why}"));
    let because: String = because.collect();
    format!(
        "{at}: {} certificates issued, {pods}, undone in reverse order if a step fails{because}\n{}",
        report.issues.len(),
        steps.join("\n")
    )
}
