"""What the pages say of files, settings, commands and code is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import datasets
import pytest

import ost_hf
from ost_hf.cli.flags import read_words
from ost_hf.cli.main import main
from ost_hf.cli.study import build_parser
from ost_hf.runs.config import SECTIONS, build_config, load_config
from ost_hf.runs.yaml_values import parse_yaml
from ost_hf.study.config import StudyConfig, load_study

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
OF_A_RUN = {"run_dir", "strategy", "training", *SECTIONS}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of a language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def slugs(page: Path) -> set[str]:
    """The places of a page that a link can name, as GitHub makes them of its headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.M), re.M)
    plain = (re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.M)):
        if target.startswith("http"):
            continue
        path, _, place = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not place or place in slugs(file), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_yaml_is_of_a_run_or_of_a_study(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_examples(tmp_path)
    monkeypatch.chdir(tmp_path)
    for text in blocks(page, "yaml"):
        given = parse_yaml(text, page.name)
        if set(given) <= OF_A_RUN:
            build_config({"run_dir": "runs/x", **given})
        elif "methods" in given:
            (tmp_path / "study.yaml").write_text(text)
            load_study(tmp_path / "study.yaml")
        else:  # a part of a study
            StudyConfig(run_dir="runs/x", seeds=[1], methods={"auto": {}}, settings={"s": {}}, **given)


def commands(page: Path) -> list[list[str]]:
    """The words of every ``ost-hf`` command in a page's shell blocks, however it is started."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    words = (shlex.split(line, comments=True) for line in lines)
    found = []
    for each in words:
        for start in ("ost-hf", "ost_hf.cli.main"):
            if start in each:
                found.append(each[each.index(start) + 1 :])
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_take_these_flags(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_examples(tmp_path)
    monkeypatch.chdir(tmp_path)
    for words in commands(page):
        if words[0] == "study":
            build_parser().parse_args(words[1:])
            continue
        read = read_words(words)
        load_config(None, read.overrides, "runs/x", read.imports)


def make_targets(page: Path) -> set[str]:
    """The targets of every ``make TARGET`` in a page's shell blocks and code spans."""
    in_blocks = re.findall(r"^(?:\w+=\S+ )*make ([\w-]+)", "\n".join(blocks(page, "bash")), re.MULTILINE)
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return {*in_blocks, *re.findall(r"`(?:\w+=\S+\s)*make\s([\w-]+)`", text)}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_has_these_targets(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert make_targets(page) <= targets


def test_pages_that_name_targets_are_read() -> None:
    assert {"setup", "test", "quality"} <= make_targets(ROOT / "CONTRIBUTING.md")
    assert "test-versions" in make_targets(ROOT / "docs" / "hardware.md")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_compiles_and_names_what_is_there(page: Path) -> None:
    for script in blocks(page, "python"):
        compile(script, page.name, "exec")
        for line in re.findall(r"^from ost_hf\S* import .+$|^import ost_hf$", script, re.MULTILINE):
            exec(line, {})
        for name in re.findall(r"\bost_hf\.(\w+)\(", script):
            assert hasattr(ost_hf, name)


def write_examples(folder: Path) -> list[str]:
    """Writes the files of extending.md; gives their names."""
    found = []
    for script in blocks(ROOT / "docs" / "extending.md", "python"):
        name = re.match(r"# (\w+\.py)\n", script)
        if name is not None:
            (folder / name[1]).write_text(script)
            found.append(name[1])
    return found


@pytest.mark.slow
def test_parts_of_ones_own_score_as_the_page_says(
    tmp_path: Path, text_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert write_examples(tmp_path) == ["long_answers.py", "worst_token.py", "length_bonus.py", "sign_step.py"]
    for name, first in (("pool", 0), ("anchors", 100)):
        rows = [
            {"prompt": f"{n} + {n}?", "completion": f"answer: {2 * n}" + " yes" * (n % 3)}
            for n in range(first, first + 12)
        ]
        datasets.Dataset.from_list(rows).to_json(f"{name}.jsonl")
    Path("mine.yaml").write_text(
        f"{{pool: {{path: pool.jsonl}}, anchors: {{path: anchors.jsonl}}, strategy: one_step, "
        f"proxy: {{model: {text_path}, warmup_min_steps: 1, warmup_batch_size: 4}}}}"
    )
    words = [each for each in commands(ROOT / "docs" / "extending.md") if "--import" in each]
    words.append(["score", "--config", "mine.yaml", "--import", "worst_token.py", "--scoring.scorer", "worst_token"])
    assert len(words) == 4
    tables = {}
    for each in words:
        file = each[each.index("--import") + 1]
        assert main([*each, "--run_dir", f"runs/{file}"]) == 0
        tables[file] = ost_hf.ScoreTable.at(f"runs/{file}").read()
        assert set(tables[file]["status"].to_pylist()) == {"ok"}
    long = tables["long_answers.py"]
    assert long["utility"].to_pylist() == [tokens**2 for tokens in long["tokens"].to_pylist()]
    worst = tables["worst_token.py"]
    assert worst["utility"].to_pylist() == [-loss for loss in worst["worst_token_loss"].to_pylist()]
    bonus = tables["length_bonus.py"]
    first = ost_hf.ScoreTable("runs/length_bonus.py/scores/first").read()
    together = [a + b for a, b in zip(first["utility"].to_pylist(), bonus["length_bonus"].to_pylist(), strict=True)]
    assert bonus["utility"].to_pylist() == pytest.approx(together)
    assert tables["sign_step.py"]["utility"].to_pylist() != first["utility"].to_pylist()


def test_the_rooms_are_those_of_the_package() -> None:
    rooms, files = inside(ROOT / "ost_hf")
    assert listed("## The rooms", "## Inside the data room") == rooms | files - {"_version.py"}
    tree = (ROOT / "README.md").read_text()
    assert not [name for name in rooms - {"checkpoints/"} if name not in tree]


def test_the_floors_are_those_of_the_data_room() -> None:
    floors, files = inside(ROOT / "ost_hf" / "data")
    assert listed("## Inside the data room", "## What meets where") == floors | files


def inside(folder: Path) -> tuple[set[str], set[str]]:
    """Folders and modules."""
    folders = {path.name + "/" for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"}
    return folders, {path.name for path in folder.glob("*.py")} - {"__init__.py"}


def listed(begin: str, end: str) -> set[str]:
    """What the first column of a section's table names."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    section = page[page.index(begin) : page.index(end)]
    cells = " ".join(line.split("|")[1] for line in section.splitlines() if line.startswith("|"))
    return set(re.findall(r"`([\w/.]+)`", cells))
