"""Measures every estimator of the one-step utility side by side, in one run on one machine.

    python scripts/benchmark_scoring.py --preset tiny_qwen3_vl --json tiny.json
    python scripts/benchmark_scoring.py --preset smollm2 --json smollm2.json --bergson

Rounds are interleaved: each contestant is timed once in every round, and a ratio is the median of the rounds'
ratios. Figures stand in the JSON under plain names, and again beside the bar that each is held to.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from benchmark import PRESET_NAMES


def main() -> int:
    """Runs one preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", required=True, help="tiny_qwen3_vl, smollm2, qwen3_06b or qwen3_vl_2b")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds that count")
    parser.add_argument("--bergson", action="store_true", help="also time bergson's own command line (preset smollm2)")
    parser.add_argument("--only_bergson", action="store_true", help="nothing but that comparison")
    parser.add_argument("--smoke", action="store_true", help="a few rows and one round: does it run?")
    args = parser.parse_args()
    if args.preset not in PRESET_NAMES:
        parser.error(f"--preset must be one of {', '.join(PRESET_NAMES)}, got {args.preset!r}")
    with_bergson = args.bergson or args.only_bergson
    if with_bergson and args.preset != "smollm2":
        parser.error("--bergson goes with --preset smollm2: bergson reads text only")
    import torch
    import transformers
    from benchmark.bergson import against_bergson
    from benchmark.presets import PRESETS
    from benchmark.sections import run_all

    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(0)
    preset = PRESETS[args.preset]
    sizes, rounds = (preset.smoke, 1) if args.smoke else (preset.sizes, args.rounds)
    result = {"preset": args.preset, "description": preset.description, "machine": machine(), "rounds": rounds}
    result |= {"smoke": args.smoke, "sizes": vars(sizes)}
    figures: dict[str, Any] = {}
    for section in () if args.only_bergson else run_all(preset, sizes, rounds):
        figures |= section
        write(result, figures, args.json)
    if with_bergson:
        figures |= against_bergson(rounds, smoke=args.smoke)
    show(write(result, figures, args.json))
    return 0


def write(result: dict[str, Any], figures: dict[str, Any], path: Path | None) -> dict[str, Any]:
    """The result with its figures and bars, written to ``path`` if there is one: a long run may end early."""
    from benchmark.bars import judge

    whole = result | {"figures": figures, "bars": judge(figures)}
    if path is not None:
        path.write_text(json.dumps(whole, indent=2) + "\n")
    return whole


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch
    import transformers

    on_gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if on_gpu else _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def show(result: dict[str, Any]) -> None:
    """Prints figures and bars."""
    print(f"\n{result['description']}\n{result['machine']}\n")
    for name, value in result["figures"].items():
        if isinstance(value, dict):
            print(f"  {name:58} {value['median']:10.4g}   [{value['lowest']:.4g}, {value['highest']:.4g}]")
        else:
            print(f"  {name:58} {value:10.4g}")
    print("\nbars")
    for bar in result["bars"]:
        sign = {"at_least": ">=", "at_most": "<="}[bar["kind"]]
        print(f"  {'met ' if bar['met'] else 'MISS'} {bar['figure']:52} {bar['value']:10.4g} {sign} {bar['bar']:.4g}")


if __name__ == "__main__":
    sys.exit(main())
