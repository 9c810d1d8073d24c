#!/usr/bin/env bash
# Runs on_gpu.py on a machine that has torch and transformers and little else, within ten
# minutes. All wheels of a folder are put before what the machine has, another
# transformers too; without one, what is missing comes from pip's index. They go into a
# folder that is removed afterwards.
#
#     benchmarks/on_gpu.sh [--wheels FOLDER] [arguments of on_gpu.py]
set -euo pipefail
root=$(realpath "$(dirname "$0")/..")
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
# --no-deps, or pip would fetch another torch: so all that is needed is named.
install() { timeout 40 python3 -m pip install -q --no-deps --no-compile --target "$site" "$@"; }
if [ "${1:-}" = --wheels ]; then
  install --no-index "$2"/*.whl
  shift 2
else
  missing=$(python3 - << 'PY'
from importlib.util import find_spec

modules = "accelerate apsw click filelock fsspec hypothesis jiwer pandas psutil pycparser"
modules += " pytest rapidfuzz regex safetensors sortedcontainers soundfile tqdm"
print(*(name for name in modules.split() if find_spec(name) is None))
if find_spec("_cffi_backend") is None:
    print("cffi")
PY
  )
  # shellcheck disable=SC2086 # an argument a package
  [ -z "$missing" ] || install $missing
fi
export PYTHONPATH=$root:$site${PYTHONPATH:+:$PYTHONPATH}
python3 "$root/benchmarks/on_gpu.py" "$@"
