"""Accuracy against cost: one panel for each setting, a mark for each method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ost_hf.errors import ConfigError
from ost_hf.reporting.statistics import mean_interval

Record = dict[str, Any]

_COLUMNS = 2
_STAGES = ("score", "select", "train")
# Okabe and Ito's colours, which people with colour blindness can tell apart, and marks that print in grey.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#F0E442")
_MARKS = "osD^vPX*<>p"


def plot_cost(study: Record, path: Path) -> None:
    """Writes a PNG: exact match and its interval over seconds of selection and training.

    Args:
        study: What ``ost-hf study`` writes to ``results.json``.
        path: The file to write.

    Raises:
        ConfigError: If matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ConfigError("the plot needs matplotlib: pip install 'ost-hf[report]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    trained = [result for result in study["results"] if result["protocol"] is not None]
    panels = [(setting, arm) for arm in _arms(trained) for setting in study["settings"]]
    panels = [panel for panel in panels if _points(trained, *panel)]
    if not panels:
        return
    rows = -(-len(panels) // _COLUMNS)
    columns = min(_COLUMNS, len(panels))
    figure, axes = pyplot.subplots(rows, columns, figsize=(5.2 * columns, 3.6 * rows), squeeze=False)
    style = {
        method: {"color": _COLOURS[place % len(_COLOURS)], "marker": _MARKS[place % len(_MARKS)]}
        for place, method in enumerate(study["methods"])
    }
    handles: dict[str, Any] = {}
    for axis, (setting, arm) in zip(axes.flat, panels, strict=False):
        for method, (seconds, scores) in _points(trained, setting, arm).items():
            interval = mean_interval(scores)
            half = 0.0 if interval.low is None else 100 * (interval.mean - interval.low)
            large = 9 if method == study["reference"] else 6
            handles[method] = axis.errorbar(
                seconds, 100 * interval.mean, yerr=half, capsize=3, markersize=large, linestyle="", **style[method]
            )
        lacking = _without_cost(trained, setting, arm)
        note = f"\ncost not known: {', '.join(lacking)}" if lacking else ""
        axis.set_title(f"{setting} ({arm[1]}){note}", fontsize=10)
        axis.set_xlabel("seconds of selection and training")
        axis.set_ylabel("exact match (%)")
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    figure.tight_layout()
    figure.legend(
        handles.values(),
        handles,
        loc="upper center",
        ncols=min(6, len(handles)),
        bbox_to_anchor=(0.5, 0),
        frameon=False,
    )
    figure.savefig(path, dpi=130, bbox_inches="tight")
    pyplot.close(figure)


def _arms(trained: list[Record]) -> list[tuple[float | None, str]]:
    """Keep ratio and protocol of each arm with a ratio; methods with a cut of their own join every one."""
    with_ratio = {(r["keep_ratio"], r["protocol"]) for r in trained if r["keep_ratio"] is not None}
    return sorted(with_ratio) or sorted({(None, r["protocol"]) for r in trained})


def _without_cost(trained: list[Record], setting: str, arm: tuple[float | None, str]) -> list[str]:
    """Methods of the panel that are not shown: every one of their scorings was interrupted and went on."""
    here = [r for r in trained if r["setting"] == setting and r["protocol"] == arm[1]]
    names = dict.fromkeys(r["method"] for r in here if r["keep_ratio"] in (arm[0], None))
    return [name for name in names if name not in _points(trained, setting, arm)]


def _points(trained: list[Record], setting: str, arm: tuple[float | None, str]) -> dict[str, tuple[float, list[float]]]:
    """Mean cost and scores by method; arms whose cost is not known are left out."""
    costs: dict[str, list[float]] = {}
    scores: dict[str, list[float]] = {}
    for result in trained:
        if result["setting"] == setting and result["protocol"] == arm[1] and result["keep_ratio"] in (arm[0], None):
            parts = [result["seconds"][stage] for stage in _STAGES]
            if None not in parts:
                costs.setdefault(result["method"], []).append(sum(parts))
                scores.setdefault(result["method"], []).append(result["score"])
    return {method: (sum(values) / len(values), scores[method]) for method, values in costs.items()}
