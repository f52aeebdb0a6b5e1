//! Whom PgBouncer takes a client certificate for, by every version that is here, and what the built-in
//! policy therefore denies of issuers that sign for several namespaces.

use std::path::Path;

use bouncert::api::tls::IssuerRef;
use bouncert::blueprint::hba;
use bouncert::clock::Clock;
use bouncert::pki::authority::{CertificateAuthority, Serial};
use bouncert::pki::key::{KeyAlgorithm, KeyEncoding, KeyKind, PrivateKey};
use bouncert::pki::profile::{CaProfile, LeafProfile, LeafUsage};
use bouncert::policy::{Policies, Request, Verdict};
use time::Duration;

use crate::support::{Pooler, write_private};
use crate::versions;

/// The users of another tenant's pooler.
const USERS: [&str; 13] = [
    "jane",
    "JANE",
    "jane.doe",
    "a.example.com",
    ".example.com",
    "example.com",
    "10.1.2.3",
    "fd00::7",
    "jane@example.com",
    "spiffe://jane",
    "4711",
    "pgbouncer",
    "PgBouncer",
];

/// A profile for clients, and the users that PgBouncer lets in with it.
fn profiles() -> Vec<(LeafProfile, &'static [&'static str])> {
    let plain = |name: &str| LeafProfile::new(LeafUsage::Client, name);
    let with_dns = |name: &str| {
        let mut profile = plain("other");
        profile.dns_names = vec![name.to_owned()];
        profile
    };
    let with_ip = |address: &str| {
        let mut profile = plain("other");
        profile.ip_addresses = vec![address.parse().unwrap()];
        profile
    };
    let mut uri = plain("other");
    uri.uris = vec!["spiffe://jane".to_owned()];
    let mut email = plain("other");
    email.email_addresses = vec!["jane@example.com".to_owned()];
    let mut serial = plain("other");
    serial.subject.serial_number = Some("4711".to_owned());
    serial.subject.organizations = vec!["jane".to_owned()];
    let mut both = plain("jane");
    both.dns_names = vec!["jane.doe".to_owned()];
    let mut without = with_dns("jane");
    without.common_name = None;
    let server = LeafProfile::new(LeafUsage::Server, "jane");
    vec![
        (plain("jane"), &["jane", "JANE"]),
        (plain("JANE"), &["jane", "JANE"]),
        (plain("*.example.com"), &["a.example.com"]),
        (plain("10.1.2.3"), &["10.1.2.3"]),
        (plain("pgbouncer"), &["pgbouncer", "PgBouncer"]),
        (with_dns("jane"), &["jane", "JANE"]),
        (with_dns("Jane.Doe"), &["jane.doe"]),
        (with_dns("*.example.com"), &["a.example.com"]),
        (with_dns("*.doe"), &[]),
        (with_dns("10.1.2.3"), &[]),
        (with_ip("10.1.2.3"), &["10.1.2.3"]),
        (with_ip("fd00::7"), &["fd00::7"]),
        (both, &["jane", "JANE", "jane.doe"]),
        (without, &["jane", "JANE"]),
        (uri, &[]),
        (email, &[]),
        (serial, &[]),
        (server, &[]),
    ]
}

/// A CA that several namespaces share.
struct Shared {
    authority: CertificateAuthority,
    directory: tempfile::TempDir,
}

impl Shared {
    fn new() -> Self {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let profile = CaProfile::new("company", Duration::days(365));
        let (serial, now) = (Serial::from_random([3; 20]), Clock::System.now());
        Self {
            authority: CertificateAuthority::self_signed(&profile, key, serial, now).unwrap(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn pem(&self) -> String {
        self.authority.certificate_pem()
    }

    /// A leaf and its key, in PEM.
    fn leaf(&self, profile: &LeafProfile) -> (String, String) {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let (serial, now) = (Serial::from_random([5; 20]), Clock::System.now());
        let leaf = self.authority.sign(profile, key.public_key(), serial, now);
        let pem = key.to_pem(KeyEncoding::Pkcs8);
        (leaf.unwrap().chain.to_pem(), pem.expose().to_owned())
    }

    /// A pooler of that program with those lines as its HBA file.
    async fn pooler(&self, program: &Path, hba: &str) -> Pooler {
        let mut server = LeafProfile::new(LeafUsage::Server, "localhost");
        server.dns_names = vec!["localhost".to_owned()];
        let (cert, key) = self.leaf(&server);
        let users: String = USERS
            .iter()
            .map(|user| format!("\"{user}\" \"s3cret\"\n"))
            .collect();
        let settings = format!(
            "auth_type=hba\nauth_hba_file={{dir}}/hba\nauth_file={{dir}}/users\nadmin_users={}\n\
             query_wait_timeout=1\nserver_connect_timeout=1\nclient_tls_sslmode=verify-full\n\
             client_tls_key_file={{dir}}/key\nclient_tls_cert_file={{dir}}/cert\n\
             client_tls_ca_file={{dir}}/ca",
            USERS.join(",")
        );
        let ca = self.pem();
        let files = [
            ("hba", hba),
            ("users", users.as_str()),
            ("cert", cert.as_str()),
            ("key", key.as_str()),
            ("ca", ca.as_str()),
        ];
        Pooler::start_as(program, "* = host=127.0.0.1 port=1", &settings, &files).await
    }

    /// What psql says of a login with that certificate and without a password.
    async fn login(
        &self,
        pooler: &Pooler,
        (user, database): (&str, &str),
        (cert, key): &(String, String),
    ) -> Result<(), String> {
        let path = |name: &str| self.directory.path().join(name);
        write_private(&path("crt"), cert);
        write_private(&path("key"), key);
        let (crt, key) = (path("crt"), path("key"));
        let conninfo = format!(
            "host={} port={} user='{user}' dbname={database} sslmode=require connect_timeout=10 \
             sslcert={} sslkey={}",
            pooler.address.ip(),
            pooler.address.port(),
            crt.display(),
            key.display()
        );
        let output = tokio::process::Command::new("psql")
            .args(["-X", "-w", "-At", "-c", "SHOW VERSION", &conninfo])
            .env_remove("PGPASSWORD")
            .output()
            .await
            .unwrap();
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8(output.stderr).unwrap())
    }
}

/// Whether the built-in policy allows a tenant to ask the shared CA for it.
fn is_allowed(profile: &LeafProfile) -> bool {
    let issuer = IssuerRef {
        api_group: None,
        kind: "ClusterIssuer".to_owned(),
        name: "company".to_owned(),
    };
    let key = KeyKind::EcdsaP256;
    let request = Request::for_leaf("team-a", "till-client-cert", &issuer, profile, key);
    matches!(
        Policies::builtin().review(&request),
        Verdict::Allowed { .. }
    )
}

#[tokio::test]
async fn whom_pgbouncer_takes_a_certificate_for_nobody_gets_from_a_shared_issuer() {
    let shared = Shared::new();
    for program in versions::all() {
        let by_certificate = "hostssl all all 0.0.0.0/0 cert\n";
        let pooler = shared.pooler(&program.path, by_certificate).await;
        for (profile, expected) in profiles() {
            let leaf = shared.leaf(&profile);
            let mut taken_for = Vec::new();
            for user in USERS {
                let answer = shared.login(&pooler, (user, "pgbouncer"), &leaf).await;
                taken_for.extend(answer.is_ok().then_some(user));
            }
            assert_eq!(taken_for, expected, "{program}: {profile:?}");
            // The name `pgbouncer` is in every tenant's certificate: the HBA file answers for that.
            if !expected.is_empty() && profile.common_name.as_deref() != Some("pgbouncer") {
                assert!(!is_allowed(&profile), "{profile:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_name_in_every_client_certificate_opens_nothing_however_it_is_spelled() {
    let shared = Shared::new();
    let everybodys = shared.leaf(&LeafProfile::new(LeafUsage::Client, "pgbouncer"));
    let janes = shared.leaf(&LeafProfile::new(LeafUsage::Client, "jane"));
    for program in versions::all() {
        let pooler = shared.pooler(&program.path, &hba::text()).await;
        for login in [
            ("pgbouncer", "pgbouncer"),
            ("PgBouncer", "pgbouncer"),
            ("pgbouncer", "app"),
            ("PgBouncer", "app"),
        ] {
            let refused = shared.login(&pooler, login, &everybodys).await.unwrap_err();
            assert!(
                refused.contains("no password supplied"),
                "{program}: {login:?}: {refused}"
            );
        }
        // Who has a certificate in the user's own name passes, as far as to PostgreSQL.
        let passed = shared
            .login(&pooler, ("jane", "app"), &janes)
            .await
            .unwrap_err();
        assert!(!passed.contains("password"), "{program}: {passed}");
        assert!(!passed.contains("authentication"), "{program}: {passed}");
        let refused = shared
            .login(&pooler, ("jane", "app"), &everybodys)
            .await
            .unwrap_err();
        assert!(
            refused.contains("certificate authentication failed"),
            "{program}: {refused}"
        );
    }
}
