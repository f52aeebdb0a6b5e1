//! `--dry-run`: what a request would do.

use super::exit::Failure;
use super::output::Output;
use crate::api::{PgBouncer, PgBouncerOpsRequest};
use crate::cluster::Cluster;

/// Prints the plan.
pub(super) async fn print(
    _output: Output,
    _cluster: &Cluster,
    _pooler: &PgBouncer,
    _request: &PgBouncerOpsRequest,
) -> Result<(), Failure> {
    Err(anyhow::anyhow!("not yet").into())
}
