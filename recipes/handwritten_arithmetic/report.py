"""The demo's table and its intervals."""

from __future__ import annotations

from typing import Any

from ost_hf.study.statistics import mean_interval

RAW = ("auc_raw_adamw", "auc_raw_sgd")
ARMS = {"base": "base model", "full": "trained on everything", "random": "random half", "ost": "OST half"}


def mean_and_interval(name: str, values: list[float]) -> dict[str, Any]:
    """``name`` and, from two values on, ``name_interval``: the 95 % t interval of the mean."""
    interval = mean_interval(values)
    ends = {} if interval.low is None else {f"{name}_interval": [interval.low, interval.high]}
    return {name: interval.mean, **ends}


def as_table(summary: dict[str, Any]) -> str:
    """The summary for people."""
    lines = ["", f"{'':24}{'exact match':>14}{'rows':>8}{'corrupted':>12}"]
    for arm, label in ARMS.items():
        entry = summary[arm]
        share = "" if entry["corrupted_share"] is None else f"{entry['corrupted_share']:.1%}"
        rows = f"{entry['rows']:,}" if entry["rows"] else ""
        lines.append(f"{label:24}{entry['exact_match']:>14.1%}{rows:>8}{share:>12}")
    seeds = summary["seeds"]
    lines += [
        "",
        f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}; OST half over random half: "
        f"{summary['points_over_random']:+.1f} points of exact match, over everything: "
        f"{summary['points_over_full']:+.1f}",
        "kept by the OST half: "
        + ", ".join(f"{share:.0%} of {kind}" for kind, share in sorted(summary["ost"]["kept_by_kind"].items())),
        f"AUC of clean against corrupted rows: {summary['auc']:.3f} by utility, "
        f"{summary['auc_low_loss']:.3f} by low loss"
        + "".join(f", {summary[key]:.3f} by {key[4:].replace('_', ' ')}" for key in summary if key in RAW),
        f"Spearman of exact and first-order utility: {summary['spearman_exact_first_order']:.3f}",
        f"{summary['seconds']:.0f} seconds",
        "",
    ]
    return "\n".join(lines)
