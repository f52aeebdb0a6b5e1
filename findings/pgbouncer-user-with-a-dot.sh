#!/usr/bin/env bash
# A PgBouncer user whose name has a dot is refused by a CA that is constrained to a DNS domain; a user without one is not.
#
# Guess:  nameConstraints with a permitted DNS domain concerns DNS names. A client certificate that has only a common
#         name, which PgBouncer compares with the user (auth_type = cert), has none, so every user name is accepted.
# Seen:   OpenSSL, which PgBouncer uses, reads a common name as a DNS name as soon as it looks like one. Under the
#         constraint "clients.example" the users `sales_report` and `sales.clients.example` log in, `sales.report` does
#         not. PgBouncer logs "certificate verify failed" and the client reads "alert certificate unknown": neither
#         names the constraint. Under a CA without constraints all three log in.
# With:   PgBouncer 1.18.0 (OpenSSL 3.0), psycopg-binary 3.3.9 (libpq 18), cryptography 50.0.2.
# Matters: whoever puts constraints on the CA for client certificates (cert-manager can, with `nameConstraints`) locks
#         out some of the users and not others, by the spelling of their names.
set -eu
work=$(mktemp -d "${TMPDIR:-/tmp}/finding.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
need() { "$@" >setup.log 2>&1 || { echo "NOT RUN: $*"; tail -n 5 setup.log; exit 2; }; }

need apt-get download 'pgbouncer=1.18.0-*' libevent-2.1-7 libc-ares2
for package in *.deb; do need dpkg -x "$package" deb; done
need python3 -m venv venv
need venv/bin/pip install --quiet cryptography==50.0.2 psycopg-binary==3.3.9 psycopg==3.3.9

cat >run.py <<'EOF'
import datetime, glob, ipaddress, os, socket, subprocess, sys, time
import psycopg
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.timezone.utc)
PEM = serialization.Encoding.PEM


def issue(common_name, ca=None, constraint=None, san=None):
    """Returns (certificate, key); self-signed without `ca`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    parent, signer = ca or (None, key)
    builder = x509.CertificateBuilder(
        issuer_name=parent.subject if parent else subject, subject_name=subject, public_key=key.public_key(),
        serial_number=x509.random_serial_number(), not_valid_before=NOW - DAY, not_valid_after=NOW + DAY,
    ).add_extension(x509.BasicConstraints(ca=parent is None, path_length=None), critical=True)
    if constraint:
        permitted = [x509.DNSName(constraint)]
        builder = builder.add_extension(x509.NameConstraints(permitted, None), critical=True)
    if san:
        builder = builder.add_extension(x509.SubjectAlternativeName([san]), critical=False)
    return builder.sign(signer, hashes.SHA256()), key


def save(name, certificate, key=None):
    with open(name + ".crt", "wb") as file:
        file.write(certificate.public_bytes(PEM))
    if key:
        with open(name + ".key", "wb") as file:
            os.chmod(name + ".key", 0o600)
            file.write(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


plain, constrained = issue("plain CA"), issue("constrained CA", constraint="clients.example")
server = issue("pooler", plain, san=x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
save("server", *server)
save("root", plain[0])
with open("clients.crt", "wb") as file:
    file.write(plain[0].public_bytes(PEM) + constrained[0].public_bytes(PEM))

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
with open("users", "w") as file:
    file.write('"sales_report" ""\n"sales.report" ""\n"sales.clients.example" ""\n')
with open("pgbouncer.ini", "w") as file:
    file.write(f"""[databases]
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = cert
auth_file = users
admin_users = sales_report, sales.report, sales.clients.example
client_tls_sslmode = verify-full
client_tls_ca_file = clients.crt
client_tls_cert_file = server.crt
client_tls_key_file = server.key
""")
account = {}
if os.geteuid() == 0:  # PgBouncer does not run as root
    account = dict(user="nobody", group="nogroup", extra_groups=[])
    os.chmod(".", 0o755)
    subprocess.run(["chown", "nobody", "server.key", "pgbouncer.ini"], check=True)
libraries = ":".join(os.path.abspath(path) for path in glob.glob("deb/usr/lib/*-linux-*"))
log = open("log", "w")
pooler = subprocess.Popen(["deb/usr/sbin/pgbouncer", "pgbouncer.ini"], stdout=log, stderr=log,
                          env={**os.environ, "LD_LIBRARY_PATH": libraries}, **account)
changed = False
try:
    for _ in range(200):
        if "process up" in open("log").read():
            break
        time.sleep(0.05)
    else:
        print("NOT RUN: PgBouncer did not start\n" + open("log").read())
        sys.exit(2)
    for authority, name, user, expected in [
        (plain, "plain", "sales_report", "accepted"),
        (plain, "plain", "sales.clients.example", "accepted"),
        (plain, "plain", "sales.report", "accepted"),
        (constrained, "constrained", "sales_report", "accepted"),
        (constrained, "constrained", "sales.clients.example", "accepted"),
        (constrained, "constrained", "sales.report", "refused: certificate verify failed"),
    ]:
        save("client", *issue(user, authority))
        before = len(open("log").read())
        try:
            with psycopg.connect(host="127.0.0.1", port=port, user=user, dbname="pgbouncer", sslmode="verify-full",
                                 sslrootcert="root.crt", sslcert="client.crt", sslkey="client.key",
                                 autocommit=True) as connection:
                connection.execute("show version")
            seen = "accepted"
        except psycopg.OperationalError as error:
            said = open("log").read()[before:]
            known = "certificate verify failed"
            seen = "refused: " + (known if known in said and "subtree" not in said else said)
            print("  the client reads:", str(error).strip().splitlines()[-1].split("failed: ", 1)[-1])
        print(f"{'ok     ' if seen == expected else 'CHANGED'} {name} CA, user {user}: {seen}")
        changed |= seen != expected
finally:
    pooler.kill()
    pooler.wait()
print(subprocess.run(["deb/usr/sbin/pgbouncer", "--version"], capture_output=True, text=True,
                     env={**os.environ, "LD_LIBRARY_PATH": libraries}).stdout.replace("\n", "; "))
print("CHANGED: the behaviour is no longer as described" if changed else "PASS: the behaviour is as described")
sys.exit(changed)
EOF
venv/bin/python run.py
