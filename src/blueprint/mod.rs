//! What objects a `PgBouncer` stands for: a pure function from spec to resources.
