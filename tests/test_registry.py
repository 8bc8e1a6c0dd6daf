"""Names that users can add to: what a file or a package of theirs registers is known, once, and used."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest

import ost_hf
from ost_hf.errors import ConfigError
from ost_hf.registry import Registry, import_file
from ost_hf.scorers.registry import SCORERS
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.second_stages import SECOND_STAGES
from ost_hf.strategy import resolve

# A scorer in three forms; each gives the same numbers for the same row.
SCORER = """
from dataclasses import dataclass, field

import numpy as np
from ost_hf.scorers.protocol import Score
from ost_hf.scorers.registry import register

@dataclass(frozen=True)
class Options:
    power: float = field(default=1.0, metadata={{"help": "exponent of the length"}})

class Long:
    batch_size = 3

    def __init__(self, options, **unused):
        self.power = options.power

    def utility(self, row):
        return float(row.tokens) ** self.power if row.row != 7 else float("nan")

@register("numbers", options=Options)
class Numbers(Long):
    def score(self, batch):
        return [self.utility(row) for row in batch]

@register("columns", options=Options)
class Columns(Long):
    def score(self, batch):
        columns = {{"utility": np.array([self.utility(row) for row in batch])}}
        return columns | ({{"half": columns["utility"] / 2}} if {more} else {{}})

@register("scores", options=Options)
class Scores(Long):
    def score(self, batch):
        utilities = [self.utility(row) for row in batch]
        return [Score(u, columns={{"half": u / 2}} if {more} else {{}}) for u in utilities]
"""


@pytest.fixture(autouse=True)
def own_names() -> Iterator[None]:
    """What a test registers or imports is forgotten after it."""
    before = [
        (registry, {name: registry.find(name) for name in registry.names()}) for registry in (SCORERS, SECOND_STAGES)
    ]
    modules = set(sys.modules)
    yield
    for registry, entries in before:
        registry._entries.clear()
        registry._entries.update(entries)
    for name in set(sys.modules) - modules:
        if name.startswith(("ost_hf_import_", "own_")):
            del sys.modules[name]


def write_scorers(folder: Path, more: bool = False) -> str:
    path = folder / "my_scorers.py"
    path.write_text(SCORER.format(more=more))
    return str(path)


# -- a user's scorer in a run


def scored_by(
    scorer: str, file: str, pool: datasets.Dataset, proxy: str, folder: Path, options: dict[str, Any] | None = None
) -> pa.Table:
    scoring = {"scorer": scorer, "imports": [file], scorer: options or {}}
    return ost_hf.score(pool, proxy=proxy, output_dir=folder / scorer, scoring=scoring).read()


@pytest.mark.parametrize("more", [False, True])
def test_numbers_columns_and_scores_make_the_same_table(
    tmp_path: Path, pool_dataset: datasets.Dataset, vlm_path: str, more: bool
) -> None:
    file, pool = write_scorers(tmp_path, more), pool_dataset.select(range(10))
    tables = {
        name: scored_by(name, file, pool, vlm_path, tmp_path, {"power": 2})
        for name in ("numbers", "columns", "scores")
        if name != "numbers" or not more
    }
    one = tables.pop("columns").replace_schema_metadata(None)
    assert ("half" in one.column_names) == more
    for other in tables.values():
        assert other.replace_schema_metadata(None).equals(one)
    lengths = one["tokens"].to_pylist()
    assert one["utility"].to_pylist() == [None if row == 7 else float(length**2) for row, length in enumerate(lengths)]
    assert [status for status in one["status"].to_pylist() if status != "ok"] == ["non_finite"]
    assert one["detail"][7].as_py() == "utility nan, loss None"


def test_a_users_scorer_and_its_options_are_the_tables_identity(
    tmp_path: Path, pool_dataset: datasets.Dataset, vlm_path: str
) -> None:
    file, pool = write_scorers(tmp_path), pool_dataset.select(range(4))
    scored_by("numbers", file, pool, vlm_path, tmp_path, {"power": 2})
    manifest = ost_hf.ScoreTable.at(tmp_path / "numbers").manifest()
    assert manifest["identity"]["scoring"]["numbers"] == {"power": 2.0}
    with pytest.raises(ost_hf.errors.RunDirectoryError, match=r"scoring\.numbers\.power was 2\.0, now 1\.0"):
        scored_by("numbers", file, pool, vlm_path, tmp_path)
    kept = ost_hf.select(tmp_path / "numbers", keep_count=2)
    assert kept.kept_count == 2


def test_a_registered_scorer_needs_no_import(tmp_path: Path, pool_dataset: datasets.Dataset, vlm_path: str) -> None:
    @ost_hf.register("by-place")
    class ByPlace:
        batch_size = None

        def __init__(self, **unused: Any):
            pass

        def score(self, batch: list[Any]) -> list[float]:
            return [-float(row.row) for row in batch]

    table = ost_hf.score(
        pool_dataset.select(range(3)), proxy=vlm_path, output_dir=tmp_path, scoring={"scorer": "by-place"}
    )
    assert table.read()["utility"].to_pylist() == [0.0, -1.0, -2.0]
    # It says nothing of what it reads, so nothing is called idle; and a strategy has no defaults for it.
    assert ScoringConfig(scorer="by-place", per_anchor=True).idle == []
    assert resolve("auto", scoring={"scorer": "by-place"}).scoring.second_stage is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"powr": 2}, r"unknown field of section scoring\.numbers 'powr' \(did you mean 'power'\?\); there are: power"),
        ({"power": "high"}, r"scoring\.numbers\.power must be float, got 'high'"),
    ],
)
def test_options_of_a_users_scorer_are_checked(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    import_file(write_scorers(tmp_path))
    with pytest.raises(ConfigError, match=message):
        ScoringConfig.from_mapping({"scorer": "numbers", "numbers": options})


# -- import_file


def test_a_file_is_imported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_scorers(tmp_path)
    import_file(file)
    first = SCORERS.find("numbers")
    monkeypatch.chdir(tmp_path)
    for again in (file, "my_scorers.py", f"{tmp_path}/../{tmp_path.name}/my_scorers.py"):
        import_file(again)
        assert SCORERS.find("numbers") is first
    # A configuration made twice has options of the same class.
    configs = [ScoringConfig.from_mapping({"scorer": "numbers", "imports": file}) for _ in range(2)]
    assert configs[0] == configs[1]
    assert configs[0].imports == (file,)


def test_files_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        text = f"from ost_hf.scorers.registry import register\n\n@register('of_{folder}')\ndef build(**u): ...\n"
        (tmp_path / folder / "own.py").write_text(text)
        import_file(str(tmp_path / folder / "own.py"))
    first = SCORERS.find("of_a")
    import_file(str(tmp_path / "a" / "own.py"))
    assert SCORERS.find("of_a") is first
    assert "of_b" in SCORERS


def test_a_module_is_imported_by_its_dotted_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_package").mkdir()
    Path(write_scorers(tmp_path)).rename(tmp_path / "own_package" / "scorers.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert "numbers" not in SCORERS
    import_file("own_package.scorers")
    assert "numbers" in SCORERS


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py", "there is no file nowhere.py to import"),
        ("own_nowhere.scorer", "cannot import 'own_nowhere.scorer' .*: name a .py file, or a module that is installed"),
    ],
)
def test_what_cannot_be_imported_is_said(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        import_file(name)
    with pytest.raises(ConfigError, match=message):
        ScoringConfig.from_mapping({"imports": [name]})


def test_a_file_that_fails_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "own_scorer.py"
    path.write_text("raise RuntimeError('half way')\n")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="half way"):
            import_file(str(path))
    write_scorers(tmp_path)
    (tmp_path / "my_scorers.py").rename(path)
    import_file(str(path))
    assert "numbers" in SCORERS


# -- names


def test_unknown_names_list_what_there_is(tmp_path: Path) -> None:
    import_file(write_scorers(tmp_path))
    ours = "column, columns, deita, ifd, judge, length, less, numbers, one_step, perplexity, random, rds, scores"
    with pytest.raises(
        ConfigError, match=rf"^unknown scorer 'onestep' \(did you mean 'one_step'\?\); there are: {ours}$"
    ):
        SCORERS.find("onestep")
    with pytest.raises(ConfigError, match=r"^unknown second stage 'x'; there are: cascade, second_look$"):
        SECOND_STAGES.find("x")
    # Modules beside the scorers are none.
    for name in ("protocol", "prompts", "registry", "", "no such thing", 3, None):
        assert name not in SCORERS


@pytest.fixture
def own_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[str]:
    """Things of a package of our own, and those that another package offers by an entry point."""
    package = tmp_path / "own_things"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "thing.py").write_text("import own_registry\nown_registry.THINGS.add('thing', 'ours')\n")
    (tmp_path / "own_offer.py").write_text(
        "import own_registry\n"
        "own_registry.THINGS.add('offered-thing', 'theirs')\n"
        "own_registry.THINGS.add('beside', 'theirs too')\n"
    )
    (tmp_path / "own_registry.py").write_text(
        "from ost_hf.registry import Registry\nTHINGS = Registry('thing', 'own_things', entry_points='own.things')\n"
    )
    info = tmp_path / "own_offer-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-offer\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[own.things]\noffered-thing = own_offer\n")
    monkeypatch.syspath_prepend(tmp_path)
    import own_registry

    return own_registry.THINGS


def test_ours_are_imported_when_they_are_asked_for(own_registry: Registry[str]) -> None:
    assert "own_things.thing" not in sys.modules
    assert own_registry.find("thing") == "ours"
    assert "own_offer" not in sys.modules


def test_what_a_package_offers_is_found_by_its_name(own_registry: Registry[str]) -> None:
    assert own_registry.find("offered-thing") == "theirs"
    assert own_registry.names() == ["beside", "offered-thing", "thing"]
    with pytest.raises(
        ConfigError, match=re.escape("unknown thing 'thin' (did you mean 'thing'?); there are: beside, ")
    ):
        own_registry.find("thin")


def test_a_users_entry_takes_the_place_of_ours_for_good(own_registry: Registry[str]) -> None:
    own_registry.add("thing", "mine")
    assert own_registry.find("thing") == "mine"
    assert own_registry.names()
    assert own_registry.find("thing") == "mine"
