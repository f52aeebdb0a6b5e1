//! The `bouncert` binary.

fn main() {}
