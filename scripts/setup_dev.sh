#!/usr/bin/env bash
# Makes .venv with everything the tests, the demo and the quality checks need. Idempotent: a second call
# with the same inputs returns at once. PYTHON=... chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

inputs=(pyproject.toml scripts/dev-constraints.txt scripts/torchvision_cpu.py scripts/setup_dev.sh)
stamp=.venv/.ost-hf-setup
wanted=$(cat "${inputs[@]}" | cksum)$(pwd)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit 0; fi

# DeepSpeed compiles one small operator the first time it starts on a CPU.
if ! command -v g++ >/dev/null; then
  echo "setup: g++ is missing; DeepSpeed needs it (Debian: apt-get install g++)" >&2
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && apt-get install -qq -y g++; else exit 1; fi
fi

python=${PYTHON:-python3}
# The pinned versions' own need; the package runs on 3.10 too.
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "setup: $("$python" --version) is too old for the pinned versions; name a Python 3.11 or newer: PYTHON=python3.12 make setup" >&2
  exit 1
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv
pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)
"${pip[@]}" "$(grep '^torch==' scripts/dev-constraints.txt)"
"${pip[@]}" --constraint scripts/dev-constraints.txt --editable '.[all]'

site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cp scripts/torchvision_cpu.py "$site/_ost_dev_torchvision_cpu.py"
echo 'import _ost_dev_torchvision_cpu' >"$site/_ost_dev_torchvision_cpu.pth"
.venv/bin/python -c 'import torch, torchvision, transformers'
echo "$wanted" >"$stamp"
echo "setup: .venv is ready"
