#!/usr/bin/env bash
# Has pkilint judge every certificate that the tests of the PKI core sign: no FATAL, and no ERROR but those that
# tests/pkilint/allowed.txt lists with a reason. Prints NOT RUN where pkilint cannot be installed.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d "${TMPDIR:-/tmp}/pkilint.XXXXXX")
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv" && "$work/venv/bin/pip" install --quiet pkilint==0.13.3 ||
  { echo 'NOT RUN: pkilint cannot be installed'; exit 0; }
mkdir "$work/certificates"
BOUNCERT_LINT_DIR=$work/certificates ${TEST:-cargo test --lib --} pki:: >"$work/tests.log" 2>&1 ||
  { tail -n 20 "$work/tests.log"; exit 1; }
"$work/venv/bin/python" tests/pkilint/judge.py "$work/certificates" tests/pkilint/allowed.txt
