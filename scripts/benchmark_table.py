"""Makes the tables of docs/scoring.md from what ``benchmark_scoring.py --json`` wrote.

    python scripts/benchmark_table.py docs/results/benchmark_*.json

prints Markdown; ``--into docs/scoring.md`` puts it between that file's two marks.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

START, END = "<!-- benchmark tables: scripts/benchmark_table.py -->", "<!-- end of benchmark tables -->"

KINDS = {
    "plain_forward": "plain forward pass",
    "lora_training_step": "LoRA training step",
    "reverse": "`reverse` (default)",
    "forward": "`forward`",
    "exact": "`exact`",
    "reference": "sequential reference",
}
LAYERS = {"all": "all", "quarter": "last quarter"}

Result = dict[str, Any]


def main() -> int:
    """Prints or inserts the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--into", type=Path, help="Markdown file with the two marks")
    args = parser.parse_args()
    text = "\n".join(tables(json.loads(path.read_text())) for path in args.files)
    if args.into is None:
        print(text)
        return 0
    page = args.into.read_text()
    before, _, rest = page.partition(START)
    _, found, after = rest.partition(END)
    if not found:
        parser.error(f"{args.into} lacks the marks {START} and {END}")
    args.into.write_text(f"{before}{START}\n\n{text}\n{END}{after}")
    return 0


def tables(result: Result) -> str:
    """The costs of one preset, and its bars."""
    machine, sizes = result["machine"], result["sizes"]
    return "\n".join(
        [
            f"### {result['description']}",
            "",
            f"`{_command(result)}`, {result['rounds']} interleaved rounds, "
            f"{machine['device']}, {machine['threads']} thread{'s' * (machine['threads'] != 1)}, torch "
            f"{machine['torch']}; {sizes['candidates']} candidates, {sizes['anchors']} anchors.",
            "",
            *(_costs(result["figures"]) if any("candidates_per_second" in name for name in result["figures"]) else []),
            "",
            *_bars(result),
            "",
            *_more(result["figures"]),
            "",
        ]
    )


def _command(result: Result) -> str:
    bergson = " --bergson" if any("bergson" in name for name in result["figures"]) else ""
    return f"python scripts/benchmark_scoring.py --preset {result['preset']} --rounds {result['rounds']}{bergson}"


def _costs(figures: Result) -> list[str]:
    lines = [
        "| | adapted layers | candidates/s | tokens/s | in plain forwards | in training steps | times the reference |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, name in KINDS.items():
        for layers, words in LAYERS.items():
            rate = figures.get(f"candidates_per_second.{kind}.{layers}")
            if rate is None:
                continue
            columns = [f"{kind}_in_plain_forwards.{layers}", f"{kind}_in_training_steps.{layers}"]
            columns += [f"{kind}_over_reference.{layers}"]
            cells = [_number(figures.get(column)) for column in columns]
            tokens = figures[f"tokens_per_second.{kind}.{layers}"]
            lines.append(f"| {name} | {words} | {_number(rate)} | {tokens:,.0f} | {' | '.join(cells)} |")
    return lines


def _bars(result: Result) -> list[str]:
    lines = ["| figure | measured | lowest and highest round | bar | |", "|---|---|---|---|---|"]
    for bar in result["bars"]:
        figure = result["figures"][bar["figure"]]
        spread = f"{_number(figure['lowest'])} to {_number(figure['highest'])}" if isinstance(figure, dict) else ""
        sign = {"at_least": "≥", "at_most": "≤"}[bar["kind"]]
        met = "met" if bar["met"] else "**missed**"
        value = _number(bar["value"])
        lines.append(f"| `{bar['figure']}` | {value} | {spread} | {sign} {_number(bar['bar'])} | {met} |")
    return lines


# How cost grows, what memory it takes, and rank correlations that no bar is set for.
MORE = {
    "whole_pool_over_1/2.reverse": "`reverse`: time for the whole pool over that for half of it",
    "whole_pool_over_1/4.reverse": "the same over a quarter of it",
    "tokens_per_second_at_length.64": "`reverse`: tokens/s of texts of 64 tokens",
    "tokens_per_second_at_length.128": "of 128",
    "tokens_per_second_at_length.256": "of 256",
    "tokens_per_second_at_length.512": "of 512",
    "seconds_to_build_direction.anchors": "seconds to build the anchor direction",
    "seconds_to_build_direction.many_anchors": "of `many_anchors`",
    "peak_megabytes.plain_forward": "peak memory beyond the model in MB: plain forward pass",
    "peak_megabytes.forward": "`forward`",
    "peak_megabytes.forward_setup": "`forward`, building its direction from one anchor at a time",
    "peak_megabytes.reverse": "`reverse`",
    "exact_minus_reference_in_sd.sgd": "`exact` and its reference, SGD: largest difference in SD",
    "exact_minus_reference_in_sd.adamw": "the same with AdamW",
    "spearman_with_exact.reverse.quarter.sgd": "Spearman: `reverse` on the last quarter, `exact` on all; SGD",
    "spearman_with_exact.reverse.quarter.adamw": "the same with AdamW",
    "spearman_bf16_reverse.adamw": "Spearman of bfloat16 with float32, AdamW: `reverse`",
    "spearman_bf16_central.adamw": "central difference",
    "tokens_per_second.second_look_float32": "tokens/s of the second look's training, products in float32",
    "tokens_per_second.second_look_bfloat16": "in bfloat16",
    "teraflops.reverse": "teraflop/s of `reverse`",
    "teraflops.matmul_peak": "of a large matrix product",
    "share_of_matmul_peak.reverse": "share",
    "tokens_per_second.bergson": "tokens/s of bergson",
    "tokens_per_second.all": "`reverse` beside it, all layers",
    "tokens_per_second.quarter": "last quarter",
    "over_bergson.unequal_our_last_quarter_against_all_layers": "**unequal**: our last quarter over its all layers",
    "spearman_with_bergson": "Spearman of both on the same rows",
}


def _more(figures: Result) -> list[str]:
    lines = ["| more | |", "|---|---|"]
    return lines + [f"| {words} | {_number(figures[name])} |" for name, words in MORE.items() if name in figures]


def _number(value: Any) -> str:
    if value is None:
        return ""
    value = value["median"] if isinstance(value, dict) else value
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4f}" if 0.9 <= abs(value) < 1 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
