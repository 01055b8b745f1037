#!/usr/bin/env bash
# Checks everything in k8s/: renders what an operator would apply, validates it against the schemas of three Kubernetes versions, and
# checks what no schema knows. Needs Python 3.11; the rest comes from PyPI.
#   tests/k8s/run.sh --write-rules   writes observability/prometheusrule.yaml from rules.yml (`make rules`)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
packages=$("$here/setup.sh")
export KUBECTL=${KUBECTL:-$packages/bin/kubectl} PYTHONDONTWRITEBYTECODE=1
cd "$here"
if [ "${1:-}" = --write-rules ]; then
  exec "$packages/bin/python" rules.py
fi
exec "$packages/bin/python" -m unittest --verbose
