//! Revisions of the TLS material of one PgBouncer: issue, stage, publish, take back.
