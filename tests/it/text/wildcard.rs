//! `databaseName: "*"`: each client gets the database that it asks for.

use serde_json::json;

use crate::stage::{NS, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_of_a_pooler_for_all_databases_get_in() {
    let stage = Stage::start().await;
    let direct = stage.postgres.address();
    let (host, port) = (direct.ip().to_string(), direct.port().to_string());
    let made = crate::text::psql(&host, &port, "postgres", "CREATE DATABASE \"sales 2026\"");
    assert!(made.is_ok(), "{made:?}");
    stage
        .create(json!({
            "apiVersion": "kubedb.com/v1", "kind": "PgBouncer", "metadata": {"name": "all"},
            "spec": {
                "version": "1.18.0",
                "database": {
                    "databaseName": "*",
                    "databaseRef": {"name": "ha-postgres", "namespace": NS},
                },
            },
        }))
        .await;
    stage.ready("all").await;
    let service = stage.service("all").await;
    let (host, port) = (service.ip().to_string(), service.port().to_string());
    for database in ["postgres", "sales 2026"] {
        let answer = crate::text::psql(&host, &port, database, "SELECT current_database()");
        assert_eq!(answer.as_deref(), Ok(database));
    }
    stage.stop().await;
}
