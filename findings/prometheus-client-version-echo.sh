#!/usr/bin/env bash
# Python's prometheus_client: the Content-Type names whatever OpenMetrics version the scraper asked for; `q=0` is not heard.
#
# Guess:  content negotiation picks from what the library can write: a scraper that asks for OpenMetrics 2.0.0, or for a
#         version that does not exist, gets the newest known one under its true number; `q=0` rules a format out.
# Seen:   `Accept: application/openmetrics-text; version=99.0.0` is answered with `version=99.0.0`, and with the very bytes
#         of 1.0.0, `_created` lines included; 2.0.0 likewise. And `application/openmetrics-text; version=1.0.0; q=0,
#         text/plain`, which excludes OpenMetrics, is answered with OpenMetrics.
# With:   prometheus_client 0.26.0.
# Matters: an exporter beside PgBouncer, or a gateway that merges exporters, is read by the version in the header. A
#         scraper that adds a version to its Accept header is told that every such exporter speaks it.
set -eu
work=$(mktemp -d "${TMPDIR:-/tmp}/finding.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
need() { "$@" >setup.log 2>&1 || { echo "NOT RUN: $*"; tail -n 5 setup.log; exit 2; }; }

need python3 -m venv venv
need venv/bin/pip install --quiet prometheus_client==0.26.0

cat >run.py <<'EOF'
import sys
import urllib.request

from prometheus_client import CollectorRegistry, Counter, start_http_server

registry = CollectorRegistry()
Counter("pgbouncer_reloads", "RELOADs sent to PgBouncer", ["pooler"], registry=registry).labels("sales").inc()
server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)


def scrape(accept):
    address = f"http://127.0.0.1:{server.server_port}/metrics"
    request = urllib.request.Request(address, headers={"Accept": accept})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
        return answer.headers["Content-Type"], answer.read()


changed = False
kind = "application/openmetrics-text"
_, one = scrape(f"{kind}; version=1.0.0")
for accept, words in [
    (f"{kind}; version=1.0.0", "version=1.0.0"), (f"{kind}; version=2.0.0", "version=2.0.0"),
    (f"{kind}; version=99.0.0", "version=99.0.0"), (f"{kind}; version=1.0.0; q=0, text/plain", "version=1.0.0"),
]:
    content_type, body = scrape(accept)
    fits = content_type.startswith(kind) and words in content_type and body == one and b"_created" in body
    print(f"{'ok     ' if fits else 'CHANGED'} {accept} -> {content_type}; body as with 1.0.0: {body == one}")
    changed |= not fits
server.shutdown()
server.server_close()
thread.join()
print("CHANGED: the behaviour is no longer as described" if changed else "PASS: the behaviour is as described")
sys.exit(changed)
EOF
venv/bin/python run.py
