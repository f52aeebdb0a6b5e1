//! The one integration-test binary.

mod acceptance;
mod apiserver;
mod architecture;
mod bad_input;
mod cli;
mod issuing;
mod pipeline;
mod platform;
mod pooler;
mod support;
