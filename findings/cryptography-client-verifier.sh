#!/usr/bin/env bash
# cryptography's client verifier refuses the client certificates by which PgBouncer tells its users.
#
# Guess:  `build_client_verifier` checks a client's chain and purpose and leaves names to the caller, so a certificate that
#         logs a user in at PgBouncer (auth_type = cert) passes it too.
# Seen:   PgBouncer takes the user from the common name and asks for no more; the verifier says "2.5.29.17: Certificate is
#         missing required extension": a subjectAltName has to be there, though nothing is compared with it. With an
#         extension policy that lets it be absent the same certificate passes, and `subjects` is None.
# With:   cryptography 50.0.2, PgBouncer 1.18.0, psycopg-binary 3.3.9 (libpq 18).
# Matters: a check of client certificates before they are rolled out, written with cryptography, fails all that work, and
#         the remedy that suggests itself, issuing them anew with a subjectAltName, replaces certificates without need.
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
import subprocess
import sys
import time

import psycopg
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification

NOW = datetime.datetime.now(datetime.timezone.utc)
HOST = "127.0.0.1"


def issue(name, by=None, authority=False, path_length=None, key=None):
    """Returns (certificate, key), signed by the pair `by` or by itself."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    parent, signer = by or (None, key)
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
        usages = [x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if name == "pooler":
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256()), key


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

root = issue("root", authority=True)
pooler, app = issue("pooler", root), issue("app", root)
save("root.crt", pem(root), OWNER)
save("pooler.crt", pem(pooler), OWNER)
save("pooler.key", key_pem(pooler), OWNER)
save("users", b'"app" ""\n', OWNER)
save("app.crt", pem(app))
save("app.key", key_pem(app))
port = free_port()
process = start_pgbouncer(f"""[databases]
[pgbouncer]
listen_addr = {HOST}
listen_port = {port}
unix_socket_dir =
auth_type = cert
auth_file = users
admin_users = app
client_tls_sslmode = verify-full
client_tls_ca_file = root.crt
client_tls_cert_file = pooler.crt
client_tls_key_file = pooler.key
""".replace("    ", ""), "process up")
try:
    with psycopg.connect(host=HOST, port=port, user="app", dbname="pgbouncer", sslmode="verify-full",
                         sslrootcert="root.crt", sslcert="app.crt", sslkey="app.key", autocommit=True) as console:
        console.execute("SHOW VERSION")
    at_pgbouncer = "accepted"
except psycopg.OperationalError as error:
    at_pgbouncer = str(error)
finally:
    process.kill()
    process.wait()


def verify(builder):
    try:
        verified = builder.store(verification.Store([root[0]])).build_client_verifier().verify(app[0], [])
        return f"accepted, subjects {verified.subjects}"
    except verification.VerificationError as error:
        return str(error)


relaxed = verification.ExtensionPolicy.webpki_defaults_ee().may_be_present(
    x509.SubjectAlternativeName, verification.Criticality.AGNOSTIC, None)
changed = False
for case, seen, words in [
    ("PgBouncer", at_pgbouncer, "accepted"),
    ("cryptography", verify(verification.PolicyBuilder()), "2.5.29.17: Certificate is missing required extension"),
    ("cryptography, subjectAltName may be absent", verify(verification.PolicyBuilder().extension_policies(
        ca_policy=verification.ExtensionPolicy.webpki_defaults_ca(), ee_policy=relaxed)), "accepted, subjects None"),
]:
    fits = words in seen
    print(f"{'ok     ' if fits else 'CHANGED'} {case}: {seen}")
    changed |= not fits

print("CHANGED: the behaviour is no longer as described" if changed else "PASS: the behaviour is as described")
sys.exit(changed)
EOF
venv/bin/python run.py
