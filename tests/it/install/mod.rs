//! What an administrator installs: the chart, the plain manifests, the rights they give.

mod chart;
mod manifests;
mod rights;
