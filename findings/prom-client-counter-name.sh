#!/usr/bin/env bash
# prom-client: a counter's series has one name in the text format and another in OpenMetrics, and two counters become one.
#
# Guess:  a counter registered as `pgbouncer_reloads` is one series of one name, whatever format it is written in; a
#         library that adds `_total`, as Python's does, adds it always.
# Seen:   prom-client adds `_total` in OpenMetrics only. Changing the registry's content type renames the series; and two
#         counters that the registry keeps apart, `pgbouncer_reloads` (3) and `pgbouncer_reloads_total` (4), are both
#         written as `pgbouncer_reloads_total`, with two values in one scrape. Nothing is raised.
# With:   prom-client 15.1.3, prometheus_client 0.26.0 (Python, for comparison).
# Matters: exemplars need OpenMetrics. Turning it on in a Node service renames the counters that alerts on PgBouncer's
#         rotations are written for, and `absent()` or `increase()` over the old name says nothing any more.
set -eu
work=$(mktemp -d "${TMPDIR:-/tmp}/finding.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
need() { "$@" >setup.log 2>&1 || { echo "NOT RUN: $*"; tail -n 5 setup.log; exit 2; }; }

need npm install --ignore-scripts --no-audit --no-fund --prefix js prom-client@15.1.3
need python3 -m venv venv
need venv/bin/pip install --quiet prometheus_client==0.26.0

cat >js/run.cjs <<'EOF'
const { Counter, Registry } = require('prom-client');
const samples = async (names, contentType) => {
  const registry = new Registry();
  names.forEach((name, index) => new Counter({ name, help: 'h', registers: [registry] }).inc(index + 3));
  registry.setContentType(contentType);
  return (await registry.metrics()).split('\n').filter(line => line && line[0] !== '#').join(', ');
};
(async () => {
  console.log('text:', await samples(['pgbouncer_reloads'], Registry.PROMETHEUS_CONTENT_TYPE));
  console.log('OpenMetrics:', await samples(['pgbouncer_reloads'], Registry.OPENMETRICS_CONTENT_TYPE));
  const two = ['pgbouncer_reloads', 'pgbouncer_reloads_total'];
  console.log('text, two:', await samples(two, Registry.PROMETHEUS_CONTENT_TYPE));
  console.log('OpenMetrics, two:', await samples(two, Registry.OPENMETRICS_CONTENT_TYPE));
})();
EOF
cat >run.py <<'EOF'
from prometheus_client import CollectorRegistry, Counter, disable_created_metrics, exposition, openmetrics
disable_created_metrics()
registry = CollectorRegistry()
Counter("pgbouncer_reloads", "h", registry=registry).inc(3)
for name, write in ("text", exposition.generate_latest), ("OpenMetrics", openmetrics.exposition.generate_latest):
    lines = [line for line in write(registry).decode().splitlines() if not line.startswith("#")]
    print(f"Python, {name}:", ", ".join(lines))
try:
    Counter("pgbouncer_reloads_total", "h", registry=registry)
except ValueError as error:
    print("Python, two:", str(error).split(":")[0])
EOF
cat >expected <<'EOF'
text: pgbouncer_reloads 3
OpenMetrics: pgbouncer_reloads_total 3
text, two: pgbouncer_reloads 3, pgbouncer_reloads_total 4
OpenMetrics, two: pgbouncer_reloads_total 3, pgbouncer_reloads_total 4
Python, text: pgbouncer_reloads_total 3.0
Python, OpenMetrics: pgbouncer_reloads_total 3.0
Python, two: Duplicated timeseries in CollectorRegistry
EOF
{ node js/run.cjs; venv/bin/python run.py; } 2>&1 | tee seen
if diff expected seen; then
  echo "PASS: the behaviour is as described"
else
  echo "CHANGED: the behaviour is no longer as described"
  exit 1
fi
