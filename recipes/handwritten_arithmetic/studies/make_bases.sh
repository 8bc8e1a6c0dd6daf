#!/usr/bin/env bash
# The four bases of the gate, taught with five operations on scans that no other row uses; ten minutes on one core.
#   bash recipes/handwritten_arithmetic/studies/make_bases.sh
set -euo pipefail
operations=(sum difference maximum product double)
make() { # name, steps, further flags
  [ -f "runs/bases/$1/model.safetensors" ] && return
  python scripts/make_tiny_qwen3_vl.py --output "runs/bases/$1" --steps "$2" --operations "${operations[@]}" "${@:3}"
}
make weak 200
make middling 320
make strong 430
# Two operations it has mastered, three it barely knows.
make uneven 300 --mostly sum maximum
