#!/usr/bin/env bash
# The text study's base, taught on problems that no other row asks; three minutes on one core.
#   bash recipes/reasoning_gym/studies/make_base.sh
set -euo pipefail
[ -f runs/bases/text/model.safetensors ] && exit
python recipes/reasoning_gym/make_tiny_qwen3.py --output runs/bases/text --steps 720 --seed 0
