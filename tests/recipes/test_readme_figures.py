"""README and docs/results.md hold the figures of the results that they speak of."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ost_hf.study.cost import SELECTING, TRAINING, seconds_of
from ost_hf.study.statistics import mean_interval
from ost_hf.study.table import percent, scores_by_method

# What a table calls a method.
ROWS = {
    "nothing": "untrained",
    "everything": "everything",
    "a random half": "random",
    "the half of lowest loss": "low_loss",
    "the paper's half (`strategy: paper`, first order)": "paper",
    "the half of highest utility (`strategy: one_step`)": "one_step",
    "the OST half (`strategy: thorough`)": "thorough",
    "`thorough`": "thorough",
    "all clean rows and no others": "oracle",
}
README_ROWS = {
    "everything": "everything",
    "a random half": "random",
    "the half of lowest loss": "low_loss",
    "the paper's half, first order": "paper",
    "the `thorough` half": "thorough",
}
SECONDS = {
    "random half": "random",
    "low loss": "low_loss",
    "`one_step`": "one_step",
    "`paper`, first order": "paper",
    "`less`": "less",
    "`thorough`": "thorough",
}
CORRUPTIONS = {
    "junk": "junk",
    "wrong bare answers": "wrong_bare_answer",
    "wrong sums": "wrong_arithmetic",
    "answers of another operation": "wrong_operation",
    "swapped pictures": "swapped_image",
    "misread digits": "wrong_perception",
}
FIXED_CHOICES = {
    "`thorough`": ["thorough"],
    "`relative`": ["relative"],
    "set-wise, of `mean_cosine`": ["setwise"],
    "worst group of anchors; round-robin over groups": ["worst_group", "round_robin"],
    "`mean_cosine` (`one_step`)": ["one_step"],
    "`per_gradient_norm`": ["per_gradient_norm"],
    "`raw`; `raw_per_sample`": ["raw", "raw_per_sample"],
    "`mean_cosine` in ten strata of length": ["length_strata"],
    "lowest loss": ["low_loss"],
    "random; everything": ["random", "everything"],
}


def results_of(root: Path, study: str, setting: str) -> list[dict]:
    found = json.loads((root / "docs" / "results" / study / "results.json").read_text())["results"]
    return [result for result in found if result["setting"] == setting]


def means(root: Path, study: str, setting: str) -> dict[str, str]:
    """The mean score of each method, rounded as the tables do."""
    scores = scores_by_method(results_of(root, study, setting))
    return {
        method: percent(mean_interval(list(of.values()))).split(" ")[0].replace("%", " %")
        for method, of in scores.items()
    }


def seconds(root: Path, method: str) -> list[str]:
    """Seconds of selecting and of training, means over the gate's ten seeds with its base `middling`."""
    arms = [arm for arm in results_of(root, "gate", "middling") if arm["method"] == method]
    assert len(arms) == 10
    costs = [[seconds_of(arm, stages) for arm in arms] for stages in (SELECTING, TRAINING)]
    return [f"{sum(each) / len(each):.0f}" for each in costs]


def tables(page: Path) -> list[list[list[str]]]:
    """The tables of a page: rows of cells, the header first, without bold type and footnotes."""
    found: list[list[list[str]]] = []
    inside = False
    for line in page.read_text().splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        if not inside:
            found.append([])
        inside = True
        if not re.fullmatch(r"[|\-]+", line):
            found[-1].append([re.sub(r"\*\*| ¹", "", cell).strip() for cell in line.strip("|").split("|")])
    return found


def table_of(page: Path, *header: str) -> dict[str, list[str]]:
    """The cells by first cell of the one table that has this header."""
    matching = [table for table in tables(page) if table[0] == list(header)]
    assert len(matching) == 1, f"{page} has {len(matching)} tables of {header}"
    return {row[0]: row[1:] for row in matching[0][1:]}


def test_readme_says_how_well_it_chooses_and_what_that_costs(root: Path) -> None:
    bases = ("middling", "strong", "uneven")
    header = ("trained on", *(f"`{base}`" for base in bases), "seconds to select", "seconds to train")
    table = table_of(root / "README.md", *header)
    assert list(table) == list(README_ROWS)
    columns = [means(root, "gate", base) for base in bases]
    for label, method in README_ROWS.items():
        expected = [column[method] for column in columns] + seconds(root, method)
        assert table[label] == expected, label


def test_table_of_seconds(root: Path) -> None:
    table = table_of(root / "docs" / "costs.md", "gate, base `middling`", "select (s)", "train (s)")
    assert list(table) == list(SECONDS)
    for label, method in SECONDS.items():
        assert table[label] == seconds(root, method), label


@pytest.mark.parametrize(
    ("study", "header"),
    [
        ("gate", ("`weak`", "`middling`", "`strong`", "`uneven`", "`middling`, nothing corrupted")),
        ("confirmation", ("`weak`", "`middling`", "`strong`", "`uneven`")),
    ],
)
def test_tables_of_the_four_bases(root: Path, study: str, header: tuple[str, ...]) -> None:
    table = table_of(root / "docs" / "results.md", "trained on", *header)
    columns = [means(root, study, base) for base in ("weak", "middling", "strong", "uneven")]
    if len(header) > len(columns):
        columns.append(means(root, "robustness", "noise_0"))
    assert len(table) == (8 if study == "gate" else 5)
    for label, cells in table.items():
        assert cells == [column.get(ROWS[label], "") for column in columns], label


def test_table_of_single_corruptions(root: Path) -> None:
    table = table_of(
        root / "docs" / "results.md", "corruption", "everything", "low loss", "`thorough`", "all clean rows"
    )
    assert list(table) == list(CORRUPTIONS)
    for label, setting in CORRUPTIONS.items():
        found = means(root, "conditions", setting)
        assert table[label] == [found[method] for method in ("everything", "low_loss", "thorough", "oracle")], label


def test_table_of_fixed_choices(root: Path) -> None:
    header = ("half of the pool", "half of it corrupted", "nothing corrupted")
    table = table_of(root / "docs" / "results.md", *header)
    assert list(table) == list(FIXED_CHOICES)
    columns = [means(root, "fixed_choices", setting) for setting in ("noise_50", "noise_0")]
    for label, methods in FIXED_CHOICES.items():
        assert table[label] == ["; ".join(column[method] for method in methods) for column in columns], label
