//! Durable objects: what the API server acknowledges survives `kill -9`.
