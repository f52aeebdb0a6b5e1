//! PgBouncer object → Secrets, Services, workload, AppBinding, status.
