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
mod backend;
mod bad_input;
mod carried;
mod cli;
mod daemons;
mod e2e;
mod fairness;
mod faults;
mod fleet;
mod forged;
mod hostile;
mod install;
mod issuing;
mod issuing_choices;
mod issuing_hostile;
mod keys;
mod library;
mod material;
mod monitoring;
mod pipeline;
mod platform;
mod platform_faults;
mod policy;
mod pooler;
mod provisioning;
mod reloading;
mod rolling;
mod rotation;
mod sealing;
mod secrecy;
mod stage;
mod support;
mod text;
mod undo;
mod versions;
