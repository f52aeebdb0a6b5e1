"""Prints what Python's ssl, with the defaults of 3.13, or cryptography says of each case."""

import datetime
import pathlib
import ssl
import sys


def by_ssl(case):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(case / "chain.pem", case / "key.pem")
    client = ssl.create_default_context(cafile=case / "bundle.pem")
    # Python 3.13 sets both by itself.
    client.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(10):
        open_ends = 0
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                open_ends += 1
        if not open_ends:
            return
    raise RuntimeError("no handshake")


def by_cryptography(case):
    from cryptography import x509
    from cryptography.x509.verification import PolicyBuilder, Store

    chain = x509.load_pem_x509_certificates((case / "chain.pem").read_bytes())
    roots = x509.load_pem_x509_certificates((case / "bundle.pem").read_bytes())
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = PolicyBuilder().store(Store(roots)).time(now)
    verifier = builder.build_server_verifier(x509.DNSName("localhost"))
    verifier.verify(chain[0], chain[1:])


def main():
    judge = {"ssl": by_ssl, "cryptography": by_cryptography}[sys.argv[1]]
    for case in sorted(pathlib.Path(sys.argv[2]).iterdir(), key=lambda case: int(case.name)):
        try:
            judge(case)
            said = "accepted"
        except Exception as error:
            said = getattr(error, "verify_message", None) or str(error) or type(error).__name__
        print(case.name, " ".join(said.split()), sep="\t")


main()
