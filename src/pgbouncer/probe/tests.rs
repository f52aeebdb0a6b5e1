use std::fs;
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncBufReadExt, BufReader, copy_bidirectional};
use tokio::net::TcpListener;

use super::*;

/// OpenSSL's server with such a certificate.
struct Server {
    program: tokio::process::Child,
    address: SocketAddr,
    der: Vec<u8>,
    _folder: tempfile::TempDir,
}

fn openssl(arguments: &[&str]) {
    let run: Child = Command::new("openssl")
        .args(arguments)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert!(
        run.wait_with_output().unwrap().status.success(),
        "{arguments:?}"
    );
}

async fn server(key: &[&str], is_version_1: bool, protocol: &str) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (pem, request, certificate) = (path("key"), path("csr"), path("crt"));
    openssl(&[["genpkey", "-out", pem.as_str()].as_slice(), key].concat());
    let subject = ["-subj", "/CN=odd"];
    if is_version_1 {
        // As PostgreSQL's manual shows it, without a file of extensions.
        openssl(
            &[
                ["req", "-new", "-key", &pem, "-out", &request].as_slice(),
                &subject,
            ]
            .concat(),
        );
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-signkey",
            &pem,
            "-out",
            &certificate,
        ]);
    } else {
        openssl(
            &[
                ["req", "-x509", "-key", &pem, "-out", &certificate].as_slice(),
                &subject,
            ]
            .concat(),
        );
    }
    let mut program = tokio::process::Command::new("openssl")
        .args([
            "s_server",
            "-accept",
            "127.0.0.1:0",
            "-naccept",
            "1",
            protocol,
        ])
        .args(["-cert", &certificate, "-key", &pem])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let address = loop {
        let line = lines.next_line().await.unwrap().unwrap();
        if let Some(address) = line.strip_prefix("ACCEPT ") {
            break address.parse().unwrap();
        }
    };
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    let document = fs::read(certificate).unwrap();
    Server {
        program,
        address,
        der: pem::parse(document).unwrap().into_contents(),
        _folder: folder,
    }
}

/// Answers one `SSLRequest` as PostgreSQL does, and hands the connection on.
async fn postgres(behind: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut request = [0; 8];
        client.read_exact(&mut request).await.unwrap();
        client.write_all(b"S").await.unwrap();
        let mut server = TcpStream::connect(behind).await.unwrap();
        let _ended = copy_bidirectional(&mut client, &mut server).await;
    });
    address
}

#[tokio::test]
async fn whatever_psql_would_connect_to_is_shown() {
    for (key, is_version_1, protocol, is_proved) in [
        (["-algorithm", "RSA"].as_slice(), true, "-tls1_3", true),
        (&["-algorithm", "RSA"], true, "-tls1_2", true),
        (
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            true,
            "-tls1_3",
            true,
        ),
        (&["-algorithm", "ED25519"], false, "-tls1_3", true),
        (
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"],
            false,
            "-tls1_3",
            false,
        ),
        (&["-algorithm", "ED448"], false, "-tls1_3", false),
        (&["-algorithm", "RSA-PSS"], false, "-tls1_3", false),
    ] {
        let mut server = server(key, is_version_1, protocol).await;
        let address = postgres(server.address).await;
        let served = probe(address, Some("odd"), Duration::from_secs(20)).await;
        let served = served.unwrap_or_else(|error| panic!("{key:?} {protocol}: {error:?}"));
        let Served::Tls(seen) = served else {
            panic!("{key:?} {protocol}: no TLS")
        };
        assert_eq!(seen.leaf(), Some(server.der.as_slice()), "{key:?}");
        assert_eq!(seen.is_proved, is_proved, "{key:?} {protocol}");
        assert_eq!(seen.fingerprint().is_some(), is_proved, "{key:?}");
        server.program.start_kill().unwrap();
    }
}
