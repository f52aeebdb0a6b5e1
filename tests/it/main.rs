//! The one integration-test binary.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod acceptance;
mod apiserver;
mod architecture;
mod bad_input;
mod cli;
mod e2e;
mod install;
mod issuing;
mod issuing_choices;
mod issuing_hostile;
mod library;
mod material;
mod pipeline;
mod platform;
mod policy;
mod pooler;
mod provisioning;
mod rotation;
mod secrecy;
mod stage;
mod support;
