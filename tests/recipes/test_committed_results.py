"""Tables in ``docs/results`` are what the commands make of their ``results.json``; README's figures stand in them."""

import json
import re
from pathlib import Path

import pytest

from ost_hf.reporting.statistics import mean_interval
from ost_hf.reporting.study_table import as_markdown, percent, scores_by_method

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
STUDIES = sorted(path.parent.name for path in RESULTS.glob("*/results.json"))
ROWS = {
    "nothing": "untrained",
    "everything": "everything",
    "a random half": "random",
    "the half of lowest loss": "low_loss",
    "the paper's half (`strategy: paper`)": "paper",
    "the OST half (`strategy: auto`)": "auto",
    "all clean rows and no others": "oracle",
}


def study(name):
    return json.loads((RESULTS / name / "results.json").read_text())


@pytest.mark.parametrize("name", STUDIES)
def test_table_is_that_of_the_results(name):
    assert (RESULTS / name / "results.md").read_text() == as_markdown(study(name))


def means(name, setting):
    scores = scores_by_method(result for result in study(name)["results"] if result["setting"] == setting)
    # As the tables round it.
    return {method: percent(mean_interval(list(of.values()))).split(" ")[0] for method, of in scores.items()}


def test_figures_of_the_readme():
    text = (ROOT / "README.md").read_text()
    header = next(line for line in text.splitlines() if line.startswith("| trained on |"))
    columns = [means("gate", setting) for setting in re.findall(r"`(\w+)` ?\|", header)]
    columns.append(means("robustness", "noise_0"))
    for label, method in ROWS.items():
        line = next(line for line in text.splitlines() if line.replace("*", "").startswith(f"| {label} |"))
        cells = [re.sub(r"[*¹ ]", "", cell) for cell in line.split("|")[2:-1]]
        expected = [column.get(method, "") for column in columns]
        assert cells == expected, label
