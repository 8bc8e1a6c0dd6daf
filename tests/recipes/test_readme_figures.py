"""README's tables hold the figures of the results that it speaks of."""

import json
import re
from pathlib import Path

from ost_hf.study.statistics import mean_interval
from ost_hf.study.table import percent, scores_by_method

ROWS = {
    "nothing": "untrained",
    "everything": "everything",
    "a random half": "random",
    "the half of lowest loss": "low_loss",
    "the paper's half (`strategy: paper`, first order)": "paper",
    "the half of highest utility (`strategy: one_step`)": "one_step",
    "the OST half (`strategy: auto`, the default)": "auto",
    "all clean rows and no others": "oracle",
}


def means(root: Path, study: str, setting: str) -> dict[str, str]:
    """The mean score of each method, rounded as the tables do."""
    results = json.loads((root / "docs" / "results" / study / "results.json").read_text())["results"]
    scores = scores_by_method(result for result in results if result["setting"] == setting)
    return {method: percent(mean_interval(list(of.values()))).split(" ")[0] for method, of in scores.items()}


def test_table_of_the_gate_and_of_robustness(root: Path) -> None:
    lines = (root / "README.md").read_text().splitlines()
    header = next(line for line in lines if line.startswith("| trained on |"))
    columns = [means(root, "gate", setting) for setting in re.findall(r"`(\w+)` ?\|", header)]
    columns.append(means(root, "robustness", "noise_0"))
    for label, method in ROWS.items():
        line = next(line for line in lines if line.replace("*", "").startswith(f"| {label} |"))
        cells = [re.sub(r"[*¹ ]", "", cell) for cell in line.split("|")[2:-1]]
        assert cells == [column.get(method, "") for column in columns], label


def test_table_of_single_corruptions(root: Path) -> None:
    settings = {
        "junk": "junk",
        "wrong bare answers": "wrong_bare_answer",
        "wrong sums": "wrong_arithmetic",
        "answers of another operation": "wrong_operation",
        "swapped pictures": "swapped_image",
        "misread digits": "wrong_perception",
    }
    lines = (root / "README.md").read_text().splitlines()
    assert "  | corruption | everything | low loss | `auto` | all clean rows |" in lines
    for label, setting in settings.items():
        found = means(root, "conditions", setting)
        cells = [found[method].replace("%", " %") for method in ("everything", "low_loss", "auto", "oracle")]
        assert f"  | {label} | {' | '.join(cells)} |" in lines
