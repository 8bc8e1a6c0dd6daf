#!/usr/bin/env bash
# The four bases of the gate and the larger target of the transfer study, taught with five operations on scans that
# no other row uses; fifteen minutes on one core.
#   bash recipes/handwritten_arithmetic/studies/make_bases.sh
set -euo pipefail
operations=(sum difference maximum product double)
make() { # name, steps, further flags
  local folder="runs/bases/$1" flags="--steps $2 --operations ${operations[*]} ${*:3}"
  if [ -f "$folder/model.safetensors" ]; then
    # Beside the folder: studies take what is in it for the model.
    [ "$(cat "$folder.flags" 2>/dev/null)" = "$flags" ] && return
    echo "$folder was made with other flags, or $folder.flags is not there to tell: remove it to make it again" >&2
    exit 1
  fi
  python scripts/make_tiny_qwen3_vl.py --output "$folder" --steps "$2" --operations "${operations[@]}" "${@:3}"
  echo "$flags" > "$folder.flags"
}
make weak 200
make middling 320
make strong 430
# Two operations it has mastered, three it barely knows.
make uneven 300 --mostly sum maximum
# A target unlike the proxy: other size, start and tokenizer; as able as `middling`.
make large 280 --hidden_size 128 --layers 8 --seed 1 --vocabulary 300
