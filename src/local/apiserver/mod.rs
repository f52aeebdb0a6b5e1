//! The Kubernetes API on one machine.

pub mod apply;
pub mod openapi;
pub mod schema;
pub mod strategic;
pub mod table;
