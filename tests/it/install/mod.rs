//! What an administrator installs: the chart, the plain manifests, the rights they give.

mod additive;
mod chart;
mod manifests;
mod monitoring;
mod reach;
pub(crate) mod rights;
