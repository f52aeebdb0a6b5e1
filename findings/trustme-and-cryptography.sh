#!/usr/bin/env bash
# trustme makes its certificates with cryptography, and cryptography's verifier refuses them.
#
# Guess:  the certificates of a test CA built on a library pass that library's own verification, if they pass anybody's.
# Seen:   libpq, rustls and BoringSSL accept a server certificate from trustme for the name that it was made for.
#         cryptography says "EE subjectAltName MUST NOT be critical when subject is nonempty": trustme marks the names
#         critical and gives the certificate a subject as well. pkilint calls that a warning, and an error only the
#         keyEncipherment that trustme allows to an EC key.
# With:   trustme 1.2.1, cryptography 50.0.2, psycopg-binary 3.3.9 (libpq 18), rtls 2026.9.21 (rustls), utls 2026.10.3
#         (BoringSSL), pkilint 0.13.3.
# Matters: tests of tools around PgBouncer's TLS take trustme for a ready CA. A tool that verifies with cryptography fails
#         them all, and relaxing it until they pass relaxes it for the sake of test material.
set -eu
work=$(mktemp -d "${TMPDIR:-/tmp}/finding.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
need() { "$@" >setup.log 2>&1 || { echo "NOT RUN: $*"; tail -n 5 setup.log; exit 2; }; }

need python3 -m venv venv
need venv/bin/pip install --quiet cryptography==50.0.2 psycopg==3.3.9 psycopg-binary==3.3.9 rtls==2026.9.21 utls==2026.10.3 trustme==1.2.1 pkilint==0.13.3

cat >run.py <<'EOF'
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading

import psycopg
import rtls
import trustme
import utls
from cryptography import x509
from cryptography.x509 import verification

HOST = "pooler.example"


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


CLIENTS = {
    "libpq": libpq,
    "rtls (rustls)": handshake(rtls),
    "utls (BoringSSL)": handshake(utls),
    "cryptography": pyca,
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


authority = trustme.CA()
issued = authority.issue_cert(HOST)
roots = authority.cert_pem.bytes()
chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
changed = compare("from trustme", roots, chain, issued.private_key_pem.bytes(), {
    "libpq": "accepted", "rtls (rustls)": "accepted", "utls (BoringSSL)": "accepted",
    "cryptography": "subjectAltName MUST NOT be critical when subject is nonempty"})
done = subprocess.run(["venv/bin/lint_pkix_cert", "lint", "-s", "WARNING", save(chain)], capture_output=True, text=True)
said = [line.strip() for line in done.stdout.splitlines() if line.startswith(" ")]
print("pkilint:", said)
changed |= len(said) != 2 or not said[0].startswith("pkix.san_extension_is_critical_non_empty_subject (WARNING)")
changed |= not said[-1].startswith("pkix.key_usage_value_prohibited_for_ec (ERROR)")

print("CHANGED: the behaviour is no longer as described" if changed else "PASS: the behaviour is as described")
sys.exit(changed)
EOF
venv/bin/python run.py
