//! The node: one real process per pod.

pub mod payload;
pub mod pod;
pub mod translate;
