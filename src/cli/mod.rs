//! Thin verbs.
