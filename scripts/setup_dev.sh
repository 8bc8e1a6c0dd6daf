#!/usr/bin/env bash
# Makes .venv with everything the tests, the demo and the quality checks need. Idempotent: a second call
# with the same inputs returns at once. PYTHON=... chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

# DeepSpeed compiles one small operator when it first starts on a CPU, and holds a lock file while it does. The lock of a
# process that was killed stays, and every later start would wait for it forever.
extensions=${TORCH_EXTENSIONS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/torch_extensions}
for lock in "$extensions"/*/deepspeed_shm_comm/lock "$extensions"/deepspeed_shm_comm/lock; do
  if [ -d /proc/self/fd ] && [ -f "$lock" ] && [ -z "$(find /proc/[0-9]*/fd -lname "$(realpath "$lock")" 2>/dev/null)" ]; then
    echo "setup: no process holds $lock; it is removed"
    rm -f "$lock"
  fi
done

inputs=(pyproject.toml scripts/dev-constraints.txt scripts/torchvision_cpu.py scripts/setup_dev.sh)
stamp=.venv/.ost-hf-setup
wanted=$(cat "${inputs[@]}" | cksum)$(pwd)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && compgen -G "$extensions/*deepspeed_shm_comm/*.so" >/dev/null; then exit 0; fi

# A compiler for DeepSpeed's operator.
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
# Here and once, so that no two tests compile it at the same time.
DS_ACCELERATOR=cpu .venv/bin/python -c 'from deepspeed.comm.torch import build_shm_op; assert build_shm_op()' >/dev/null
echo "$wanted" >"$stamp"
echo "setup: .venv is ready"
