#!/usr/bin/env bash
# PgBouncer reads `server_tls_ca_file` at each new connection to PostgreSQL, `client_tls_cert_file` only at RELOAD.
#
# Guess:  TLS files are read at the start and at RELOAD, on both sides alike; until RELOAD a change on disk has no effect.
# Seen:   the two sides differ. A new certificate in `client_tls_cert_file` is not served before RELOAD. A new
#         `server_tls_ca_file` counts for the very next connection to PostgreSQL: a CA that does not fit, written over the
#         old one, fails the next client without any command, and the old one written back lets the next client in. A
#         RELOAD in between does not tell: it answers RELOAD.
# With:   PgBouncer 1.18.0, psycopg-binary 3.3.9 (libpq 18), cryptography 50.0.2.
# Matters: "write all files, check, then RELOAD" protects the clients' side only. Towards PostgreSQL the write itself is
#         the change, so the bundle has to hold the old CA and the new one before either is needed.
set -eu
work=$(mktemp -d "${TMPDIR:-/tmp}/finding.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
need() { "$@" >setup.log 2>&1 || { echo "NOT RUN: $*"; tail -n 5 setup.log; exit 2; }; }

need apt-get download 'pgbouncer=1.18.0-*' libevent-2.1-7 libc-ares2
for package in *.deb; do need dpkg -x "$package" deb; done
need python3 -m venv venv
need venv/bin/pip install --quiet cryptography==50.0.2 psycopg==3.3.9 psycopg-binary==3.3.9

cat >run.py <<'EOF'
import datetime
import glob
import ipaddress
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

import psycopg
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

NOW = datetime.datetime.now(datetime.timezone.utc)
HOST = "127.0.0.1"


def issue(name, by=None, authority=False, path_length=None, key=None):
    """Returns (certificate, key), signed by the pair `by` or by itself."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    parent, signer = by or (None, key)
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    identifier = x509.SubjectKeyIdentifier.from_public_key
    builder = x509.CertificateBuilder(
        issuer_name=parent.subject if parent else subject, subject_name=subject, public_key=key.public_key(),
        serial_number=x509.random_serial_number(), not_valid_before=NOW - datetime.timedelta(1),
        not_valid_after=NOW + datetime.timedelta(30),
    ).add_extension(x509.BasicConstraints(authority, path_length), critical=True)
    builder = builder.add_extension(identifier(key.public_key()), critical=False).add_extension(
        x509.AuthorityKeyIdentifier(identifier(signer.public_key()).digest, None, None), critical=False)
    builder = builder.add_extension(x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False), critical=True)
    if not authority:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))])
        builder = builder.add_extension(names, critical=False).add_extension(
            x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return builder.sign(signer, digest), key


def pem(*pairs):
    return b"".join(pair[0].public_bytes(serialization.Encoding.PEM) for pair in pairs)


def key_pem(pair):
    return pair[1].private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                 serialization.NoEncryption())


def save(name, content, owner=None):
    with open(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    if owner:
        shutil.chown(name, owner)
    return os.path.abspath(name)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A stand-in for PostgreSQL: TLS, a login without password, one empty answer, and the end of the connection."""

    def __init__(self, chain, key):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(chain, key)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            raw, _ = self.listener.accept()
            raw.settimeout(20)
            try:
                raw.recv(8)
                raw.sendall(b"S")
                with self.context.wrap_socket(raw, server_side=True) as tls:
                    length = struct.unpack("!I", tls.recv(4))[0]
                    tls.recv(length - 4)
                    setting = b"client_encoding\0UTF8\0"
                    tls.sendall(b"R" + struct.pack("!II", 8, 0) + b"S" + struct.pack("!I", 4 + len(setting)) + setting
                                + b"Z" + struct.pack("!I", 5) + b"I")
                    tls.recv(1000)
                    tls.sendall(b"I" + struct.pack("!I", 4) + b"Z" + struct.pack("!I", 5) + b"I")
            except (OSError, struct.error):
                pass  # PgBouncer refused the certificate
            finally:
                raw.close()


# PostgreSQL and PgBouncer refuse to run as root.
ACCOUNT = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
OWNER = ACCOUNT.get("user")
if OWNER:
    os.chmod(".", 0o777)


def start_pgbouncer(ini, said):
    """Returns the process once it has said `said`."""
    save("pgbouncer.ini", ini.encode(), OWNER)
    libraries = os.path.abspath(glob.glob("deb/usr/lib/*-linux-*")[0])
    with open("pgbouncer.log", "w") as log:
        process = subprocess.Popen(["deb/usr/sbin/pgbouncer", "pgbouncer.ini"], stdout=log, stderr=log,
                                   env={**os.environ, "LD_LIBRARY_PATH": libraries}, **ACCOUNT)
    for _ in range(400):
        if said in open("pgbouncer.log").read():
            return process
        time.sleep(0.05)
    process.kill()
    print("NOT RUN: PgBouncer said\n" + open("pgbouncer.log").read())
    sys.exit(2)

right, wrong = issue("root", authority=True), issue("other root", authority=True)
leaves = [issue("first", right), issue("second", right)]
postgres = issue("postgres", right)
save("root.crt", pem(right))
backend = Server(save("postgres.crt", pem(postgres)), save("postgres.key", key_pem(postgres)))
port = free_port()


def serve(leaf):
    save("server.crt", pem(leaf), OWNER)
    save("server.key", key_pem(leaf), OWNER)


def served():
    """Returns the common name in the certificate that PgBouncer serves."""
    context = ssl.create_default_context(cafile="root.crt")
    with socket.create_connection((HOST, port), 20) as raw:
        raw.sendall(struct.pack("!II", 8, 80877103))
        raw.recv(1)
        with context.wrap_socket(raw, server_hostname=HOST) as tls:
            return dict(part[0] for part in tls.getpeercert()["subject"])["commonName"]


def connect(database):
    return psycopg.connect(host=HOST, port=port, user="app", dbname=database, sslmode="verify-full",
                           sslrootcert="root.crt", connect_timeout=20, autocommit=True)


def reload():
    with connect("pgbouncer") as console:
        return console.execute("RELOAD").statusmessage


def query():
    """Returns "accepted", or "refused" if PgBouncer has logged that it refused PostgreSQL's certificate."""
    start = len(open("pgbouncer.log").read())
    try:
        with connect("app") as connection:
            connection.execute("")
        return "accepted"
    except psycopg.OperationalError as error:
        log = open("pgbouncer.log").read()[start:]
        return "refused" if "certificate verify failed" in log else f"{error} {log}"


def settled(expected):
    """Asks until the answer is the expected one, because PgBouncer waits a second after a refusal."""
    for _ in range(10):
        seen = query()
        if seen == expected:
            break
        time.sleep(1)
    return seen


def check(step, seen, expected):
    print(f"{'ok     ' if seen == expected else 'CHANGED'} {step}: {seen}")
    return seen != expected


serve(leaves[0])
save("postgres-root.crt", pem(right), OWNER)
save("users", b'"app" ""\n', OWNER)
process = start_pgbouncer(f"""[databases]
app = host={HOST} port={backend.port}
[pgbouncer]
listen_addr = {HOST}
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = users
admin_users = app
server_login_retry = 1
query_wait_timeout = 5
client_tls_sslmode = require
client_tls_cert_file = server.crt
client_tls_key_file = server.key
server_tls_sslmode = verify-full
server_tls_ca_file = postgres-root.crt
""".replace("    ", ""), "process up")
try:
    changed = check("served at first", served(), "first")
    changed |= check("query at first", query(), "accepted")
    serve(leaves[1])
    changed |= check("served after client_tls_cert_file was written", served(), "first")
    changed |= check("answer to RELOAD", reload(), "RELOAD")
    changed |= check("served after RELOAD", served(), "second")
    changed |= check("query after RELOAD", settled("accepted"), "accepted")
    save("postgres-root.crt", pem(wrong), OWNER)
    changed |= check("query after another CA was written to server_tls_ca_file", query(), "refused")
    changed |= check("answer to RELOAD", reload(), "RELOAD")
    changed |= check("query after that RELOAD", settled("refused"), "refused")
    save("postgres-root.crt", pem(right), OWNER)
    changed |= check("query after the first CA was written back", settled("accepted"), "accepted")
finally:
    process.kill()
    process.wait()

print("CHANGED: the behaviour is no longer as described" if changed else "PASS: the behaviour is as described")
sys.exit(changed)
EOF
venv/bin/python run.py
