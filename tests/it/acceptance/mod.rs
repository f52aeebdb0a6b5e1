//! The acceptance list of the KubeDB-compatible surface (CONTRACT appendix A), on real poolers.

mod creation;
mod deletion;
mod identities;
mod issuers;
mod queue;
mod walkthrough;
