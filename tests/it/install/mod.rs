//! What an administrator installs: the chart, the plain manifests, the rights they give.

mod additive;
pub(crate) mod chart;
mod manifests;
mod monitoring;
mod reach;
pub(crate) mod rights;
mod scope;
