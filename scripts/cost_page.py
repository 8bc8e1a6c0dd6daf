"""The arithmetic and the page of ``measure_cost.py``: selection's cost as a line in the pool's rows, and when it pays.

    python scripts/cost_page.py docs/results/cost.json

writes ``cost.md`` beside the measurements.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from ost_hf.scoring.passes import FULL_UPDATE, PARTS

RATIOS = (1, 4, 10, 30)
EPOCHS = (1, 3)
KEPT = 0.5

Record = dict[str, Any]


def main() -> None:
    """Renders the page again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="what measure_cost.py wrote")
    file = parser.parse_args().file
    file.with_suffix(".md").write_text(page(json.loads(file.read_text())))


def fitted(rows: list[int], row_passes: list[float]) -> Record | None:
    """Least squares: a constant and what each row adds, both in forward passes of a row; of two sizes at least.

    ``largest_miss`` is the largest difference of a measurement from the line, as a share of the measurement.
    """
    if len(set(rows)) < 2:
        return None
    per_row, constant = np.polyfit(rows, row_passes, 1)
    misses = [
        abs(constant + per_row * n - found) / found for n, found in zip(rows, row_passes, strict=True) if found > 0
    ]
    # Rounded: what does not depend on the rows has a slope of some 1e-16, of either sign.
    line = {"constant": constant, "per_row": per_row, "largest_miss": max(misses, default=0.0)}
    return {name: round(float(value), 6) + 0.0 for name, value in line.items()}


def fits(sizes: list[Record]) -> Record:
    """The line of all parts together, and of each part; nothing of a single size."""
    rows = [size["cost"]["rows"] for size in sizes]
    names = [name for name in PARTS if any(name in size["cost"]["parts"] for size in sizes)]
    of_parts = {
        name: fitted(rows, [size["cost"]["parts"].get(name, {"row_passes": 0})["row_passes"] for size in sizes])
        for name in names
    }
    total = fitted(rows, [size["cost"]["row_passes"] for size in sizes])
    if total is None:
        return {}
    return {"total": total, "parts": {name: line for name, line in of_parts.items() if line and any(line.values())}}


def total_cost(passes: float, ratio: float, epochs: int) -> float:
    """Selection and training on what is kept, over training on everything.

    Args:
        passes: What selection costs, in forward passes of the proxy over the pool.
        ratio: What a forward pass of the target costs, in those of the proxy.
        epochs: Passes of the training, each as dear as three forward passes of the target.
    """
    return passes / (FULL_UPDATE * ratio * epochs) + KEPT


def page(report: Record) -> str:
    """The measurements as Markdown."""
    commands = dict.fromkeys(size["command"] for each in report["variants"].values() for size in each["sizes"])
    lines = [
        "# What selection costs",
        "",
        f"Made by {' and '.join(f'`{command}`' for command in commands)}.",
        "",
        "F is a forward pass of the proxy over the rows of the pool that got a score ([glossary](../glossary.md)). The",
        "passes are counted, not timed. Copies that were dropped are no rows of the pool.",
    ]
    for name, variant in report["variants"].items():
        lines += ["", f"## {name}", "", *_settings(variant), "", *_measured(variant), *_fit(variant), *_totals(variant)]
    return "\n".join(lines) + "\n"


def _settings(variant: Record) -> list[str]:
    given = " ".join(variant["given"])
    set_here = f"with `{given}`" if given else "with the defaults of the recipe"
    made = "; ".join(dict.fromkeys(f"commit {size['commit']}, {_machine(size)}" for size in variant["sizes"]))
    return [f"Base `{variant['settings']['base']}`, {set_here}; {variant['settings']['anchors']} anchors; {made}."]


def _machine(size: Record) -> str:
    machine = size["machine"]
    return f"{', '.join(machine['accelerators']) or machine['processor']}, torch {machine['libraries']['torch']}"


def _measured(variant: Record) -> list[str]:
    """A line for each size: passes by part, and what they took."""
    sizes, lora = variant["sizes"], variant.get("lora")
    names = [name for name in PARTS if any(size["cost"]["parts"].get(name, {}).get("passes") for size in sizes)]
    head = ["rows of the pool", "scored", *(PARTS[name] for name in names), "F in all", "trainings", "steps", "seconds"]
    head += ["in passes of LoRA training", "MiB before", "MiB at most"] if lora else ["MiB before", "MiB at most"]
    lines = [_row(head), "|---" * len(head) + "|"]
    for size in sizes:
        cost = size["cost"]
        cells = [f"{size['pool_rows']:,}", f"{cost['rows']:,}"]
        cells += [f"{cost['parts'].get(name, {'passes': 0})['passes']:.2f}" for name in names]
        cells += [f"{cost['passes']:.2f}", str(cost["trainings"]), f"{cost['steps']:,}", f"{cost['seconds']:.0f}"]
        if lora:
            cells.append(f"{cost['seconds'] / (cost['rows'] * lora['seconds_per_row']):.1f}")
        lines.append(_row([*cells, f"{size['memory']['before']:,}", f"{size['memory']['most']:,}"]))
    if lora:
        lines += [
            "",
            f"For comparison, training the proxy's LoRA adapter: {1 / lora['seconds_per_row']:.0f} rows a second, "
            f"{lora['memory']['most']:,} MiB at most.",
        ]
    return lines


def _fit(variant: Record) -> list[str]:
    if not variant["fits"]:
        return []
    total, parts = variant["fits"]["total"], variant["fits"]["parts"]
    lines = [
        "",
        f"Between these sizes, as a line in the number of rows: {total['constant']:,.0f} forward passes of a row, and "
        f"{total['per_row']:.2f} for each row of the pool. No measurement is further from the line than "
        f"{total['largest_miss']:.1%}.",
        "",
        "| part | constant | for each row | furthest from the line |",
        "|---|---|---|---|",
    ]
    return lines + [
        f"| {PARTS[name]} | {line['constant']:,.0f} | {line['per_row']:.2f} | {line['largest_miss']:.1%} |"
        for name, line in parts.items()
    ]


def _totals(variant: Record) -> list[str]:
    head = ["rows", "F", *(f"r = {ratio}, {_epochs(epochs)}" for epochs in EPOCHS for ratio in RATIOS)]
    lines = [
        "",
        "Selection and training on half of the pool, over training on all of it: F / (3 r e) + 1/2. A forward pass of",
        "the target costs r times as much as one of the proxy; e is the number of epochs, and an epoch costs three",
        "forward passes. Above 100 %, selection costs more than it saves. F of a planned size is not measured: it is",
        "the doctor's arithmetic, in which no row is found corrupted and no batch is tried for its memory. The",
        "constant part is spread over the rows of the first column.",
        "",
        _row(head),
        "|---" * len(head) + "|",
    ]
    for each in variant["totals"]:
        rows = f"{each['rows']:,}{'' if each['measured'] else ' (planned)'}"
        lines.append(_row([rows, f"{each['passes']:.2f}", *(f"{value:.0%}" for value in each["over_everything"])]))
    return lines


def totals(costs: list[Record], plans: list[Record]) -> list[Record]:
    """Total costs at the sizes that were measured, and at others that were planned, in the order of the page."""
    found = [(cost["rows"], cost["passes"], True) for cost in costs]
    found += [(plan["rows"], plan["passes"], False) for plan in plans]
    return [
        {
            "rows": rows,
            "passes": passes,
            "measured": measured,
            "over_everything": [total_cost(passes, ratio, epochs) for epochs in EPOCHS for ratio in RATIOS],
        }
        for rows, passes, measured in sorted(found)
    ]


def _epochs(number: int) -> str:
    return f"{number} epoch{'s' * (number > 1)}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
