//! A PgBouncer that is created with TLS (the tutorial's `pb-tls`).

use bouncert::api::SslMode;
use bouncert::pgbouncer::probe::{Served, fingerprint};
use bouncert::pki::facts::read_chain;

use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pgbouncer_created_with_tls_comes_up_with_it() {
    let stage = Stage::start().await;
    // The PgBouncer comes first and waits for its issuer.
    stage.example("pgbouncer-ssl").await;
    stage
        .openssl_ca("pgbouncer-ca", "/CN=pgbouncer/O=kubedb")
        .await;
    stage.example("issuer").await;
    let bouncer = stage.ready("pb-tls").await;
    assert_eq!(bouncer.spec.ssl_mode, Some(SslMode::VerifyCa));
    let leaf = read_chain(&stage.secret("pb-tls-server-cert", "tls.crt").await)
        .unwrap()
        .remove(0);
    assert!(leaf.subject.contains("O=kubedb:server"), "{}", leaf.subject);
    for served in stage.served("pb-tls").await {
        let Served::Tls(handshake) = served else {
            panic!("no TLS")
        };
        assert_eq!(fingerprint(&handshake.chain[0]), leaf.fingerprint);
    }
    let files = stage.client_files("pb-tls-client-cert").await;
    assert_eq!(
        stage
            .psql("pb-tls", &format!("sslmode=verify-full {files}"))
            .await
            .unwrap(),
        "42"
    );
    assert!(stage.psql("pb-tls", "sslmode=require").await.is_err());
    stage.stop().await;
}
