"""Accuracy against cost: one panel for each setting, a mark for each method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ost_hf.errors import ConfigError
from ost_hf.study.cost import SELECTING, TRAINING, known_of_some, seconds_of
from ost_hf.study.statistics import mean_interval

Record = dict[str, Any]
Arm = tuple[float | None, str]  # keep ratio and protocol

_COLUMNS = 2
# Okabe and Ito's colours, which people with colour blindness can tell apart, then dark ones of Tol's for studies with
# more methods, and marks that print in grey. Methods with a role in every study look the same in all of them.
_OF_ROLES = {
    "reference": {"color": "#D55E00", "marker": "*"},
    "everything": {"color": "#999999", "marker": "s"},
    "oracle": {"color": "#000000", "marker": "D"},
}
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#882255", "#332288", "#999933")
_MARKS = "o^vPX<>p"


def plot_cost(study: Record, path: Path) -> None:
    """Writes a PNG: exact match and its interval over seconds of selection and training.

    A mark is of all seeds; its cost is the mean over those whose cost is known, and the title says where not all are.

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
    panels = [panel for panel in panels if marks(trained, *panel)]
    if not panels:
        return
    rows = -(-len(panels) // _COLUMNS)
    columns = min(_COLUMNS, len(panels))
    figure, axes = pyplot.subplots(rows, columns, figsize=(5.2 * columns, 3.6 * rows), squeeze=False)
    style = styles(study)
    handles: dict[str, Any] = {}
    for axis, (setting, arm) in zip(axes.flat, panels, strict=False):
        for method, mark in marks(trained, setting, arm).items():
            large = 12 if method == study["reference"] else 6
            handles[method] = _draw_mark(axis, mark, markersize=large, **style[method])
        axis.set_title(panel_title(trained, setting, arm), fontsize=10)
        axis.set_xlabel("seconds of selection and training")
        axis.set_ylabel("exact match (%)")
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    figure.tight_layout()
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "frameon": False}
    figure.legend(handles.values(), handles, ncols=min(6, len(handles)), **below)
    figure.savefig(path, dpi=130, bbox_inches="tight")
    pyplot.close(figure)


def _draw_mark(axis: Any, mark: tuple[float, list[float]], **style: Any) -> Any:
    """One method's mean over its seeds with the interval, at its cost."""
    seconds, scores = mark
    interval = mean_interval(scores)
    half = 0.0 if interval.low is None else 100 * (interval.mean - interval.low)
    return axis.errorbar(seconds, 100 * interval.mean, yerr=half, capsize=3, linestyle="", **style)


def styles(study: Record) -> dict[str, dict[str, str]]:
    """Colour and mark by method."""
    found = {study[role]: style for role, style in _OF_ROLES.items()}
    others = [method for method in study["methods"] if method not in found]
    for place, method in enumerate(others):
        found[method] = {"color": _COLOURS[place % len(_COLOURS)], "marker": _MARKS[place % len(_MARKS)]}
    return found


def _arms(trained: list[Record]) -> list[Arm]:
    """Each arm with a ratio; methods with a cut of their own join every one."""
    with_ratio = {(r["keep_ratio"], r["protocol"]) for r in trained if r["keep_ratio"] is not None}
    return sorted(with_ratio) or sorted({(None, r["protocol"]) for r in trained})


def panel_title(trained: list[Record], setting: str, arm: Arm) -> str:
    """Setting, protocol and what is kept, and the methods whose cost is of fewer seeds than their score."""
    notes = [
        f"\ncost {f'of {known} of {count} seeds' if known else 'not known'}: {', '.join(methods)}"
        for (known, count), methods in known_of_some(_of_panel(trained, setting, arm)).items()
    ]
    kept = "" if arm[0] is None else f", keep {arm[0]:.0%}"
    return f"{setting} ({arm[1]}{kept}){''.join(notes)}"


def _of_panel(trained: list[Record], setting: str, arm: Arm) -> list[Record]:
    here = [r for r in trained if r["setting"] == setting and r["protocol"] == arm[1]]
    return [r for r in here if r["keep_ratio"] in (arm[0], None)]


def marks(trained: list[Record], setting: str, arm: Arm) -> dict[str, tuple[float, list[float]]]:
    """By method the mean of its known costs, in seconds, and its scores; without any known cost it has no place.

    Args:
        trained: Trained arms of the whole study.
        setting: The panel's.
        arm: The panel's.
    """
    costs: dict[str, list[float]] = {}
    scores: dict[str, list[float]] = {}
    for result in _of_panel(trained, setting, arm):
        cost = seconds_of(result, SELECTING + TRAINING)
        scores.setdefault(result["method"], []).append(result["score"])
        if cost is not None:
            costs.setdefault(result["method"], []).append(cost)
    return {method: (sum(values) / len(values), scores[method]) for method, values in costs.items()}
