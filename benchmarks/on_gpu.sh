#!/usr/bin/env bash
# Runs on_gpu.py on a machine that has torch and transformers and little else, within ten
# minutes. What is missing is taken from wheels in a folder, or else from pip's index; it
# goes into a folder that is removed afterwards, and nothing of the machine is replaced.
#
#     benchmarks/on_gpu.sh [--wheels FOLDER] [arguments of on_gpu.py]
set -euo pipefail
wheels=()
if [ "${1:-}" = --wheels ]; then
  wheels=(--no-index --find-links "$2")
  shift 2
fi
root=$(realpath "$(dirname "$0")/..")
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
# Without what they need in turn, or pip would fetch another torch: so all are named.
missing=$(python3 - << 'PY'
from importlib.util import find_spec

packages = {"_cffi_backend": "cffi", "hypothesis": "hypothesis sortedcontainers"}
modules = "accelerate apsw click filelock fsspec jiwer pandas psutil pytest rapidfuzz"
modules += " regex safetensors soundfile tqdm _cffi_backend pycparser hypothesis"
for module in modules.split():
    if find_spec(module) is None:
        print(packages.get(module, module))
PY
)
if [ -n "$missing" ]; then
  echo "installing: "$missing >&2
  # shellcheck disable=SC2086 # one argument a package
  timeout 40 python3 -m pip install -q --no-deps --target "$site" "${wheels[@]}" $missing
fi
export PYTHONPATH=$root:$site${PYTHONPATH:+:$PYTHONPATH}
python3 "$root/benchmarks/on_gpu.py" "$@"
