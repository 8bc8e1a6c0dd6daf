#!/usr/bin/env bash
# Runs the tests of everything that touches transformers, accelerate, peft and datasets against the oldest versions
# that pyproject.toml claims. They lie in a folder of their own before the development environment's.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup_dev.sh

oldest=.venv/oldest
if [ ! -f "$oldest/.complete" ]; then
  rm -rf "$oldest"
  pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check --target "$oldest")
  "${pip[@]}" --no-deps transformers==5.12.0 accelerate==1.10.0 peft==0.18.0 datasets==4.0.0 \
    huggingface_hub==1.5.0 tokenizers==0.22.2 dill==0.3.8 multiprocess==0.70.16 fsspec==2025.3.0
  "${pip[@]}" 'httpx<1' requests typer
  touch "$oldest/.complete"
fi
export PYTHONPATH="$oldest" OMP_NUM_THREADS=1
.venv/bin/python -c 'import transformers; assert transformers.__version__ == "5.12.0", transformers.__version__'
.venv/bin/python -m pytest tests/functional tests/evidence tests/proxy tests/scorers tests/scoring tests/selection tests/training tests/data \
  tests/duplicates tests/evaluation \
  --deselect tests/training/test_trl.py "$@"
