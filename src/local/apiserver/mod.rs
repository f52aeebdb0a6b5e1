//! The Kubernetes API on one machine.
