//! Serde types of every resource we read or write, their defaults and CRDs; no behaviour.
