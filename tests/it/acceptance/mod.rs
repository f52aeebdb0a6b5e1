//! What a user of KubeDB observes (docs/kubedb-compatibility.md, "The tutorial"), on real poolers.

mod creation;
mod deletion;
mod identities;
mod issuers;
mod queue;
mod walkthrough;
