#!/usr/bin/env bash
# The text study's base, taught on problems that no other row asks; three minutes on one core.
#   bash recipes/reasoning_gym/studies/make_base.sh
set -euo pipefail
folder=runs/bases/text flags="--steps 720 --seed 0"
if [ -f "$folder/model.safetensors" ]; then
  # Beside the folder: studies take what is in it for the model.
  [ "$(cat "$folder.flags" 2>/dev/null)" = "$flags" ] && exit
  echo "$folder was made with other flags, or $folder.flags is not there to tell: remove it to make it again" >&2
  exit 1
fi
# shellcheck disable=SC2086  # words, not one word
python recipes/reasoning_gym/make_tiny_qwen3.py --output "$folder" $flags
echo "$flags" > "$folder.flags"
