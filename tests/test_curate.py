"""One choice through every door: the same selection, byte by byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pytest
from here import run_groups_here

import ost_hf
from ost_hf.cli.main import main
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.errors import ConfigError, DataError, OSTError, RunDirectoryError
from ost_hf.proxy.config import ProxyConfig
from ost_hf.runs.yaml_values import dump_yaml
from ost_hf.scoring.config import ScoringConfig
from ost_hf.training.config import OSTConfig
from ost_hf.training.trainer import OSTTrainer
from ost_hf.training.trl import OSTSFTConfig, OSTSFTTrainer


@dataclass(frozen=True)
class Settings:
    """How rows are chosen: what is given, and no default of it."""

    strategy: str
    scoring: dict[str, Any]
    selection: dict[str, Any]


CHOICES = {
    "auto": Settings(
        "auto", {"second_look": {"rounds": 1, "epochs": 0.1, "min_steps": 2, "batch_size": 8}}, {"keep_ratio": 0.5}
    ),
    "one_step": Settings("one_step", {}, {"keep_ratio": 0.3}),
}
_TRAINING = {"max_steps": 1, "per_device_train_batch_size": 2, "save_strategy": "no", "use_cpu": True}


@dataclass(frozen=True)
class Sources:
    """The pool and the anchors, in memory and in files, and what the proxy and the target are made of."""

    folder: Path
    pool: datasets.Dataset
    anchors: datasets.Dataset
    model: str

    @property
    def proxy(self) -> dict[str, Any]:
        """Fields of the proxy."""
        return {"model": self.model, "lora_r": 2, "warmup_min_steps": 3, "warmup_batch_size": 4}

    def file(self, name: str) -> str:
        """A file of rows."""
        return str(self.folder / f"{name}.parquet")

    def sections(self, settings: Settings) -> dict[str, Any]:
        """The sections of a run's YAML."""
        return {
            "strategy": settings.strategy,
            "pool": {"path": self.file("pool")},
            "anchors": {"path": self.file("anchors")},
            "proxy": self.proxy,
            "scoring": settings.scoring,
            "selection": settings.selection,
        }


def chat_rows(rows: datasets.Dataset) -> datasets.Dataset:
    """Prompt and completion, which every trainer takes; and the solution, by which an answer is judged."""
    return rows.map(
        lambda row: {
            "prompt": [{"role": "user", "content": row["question"]}],
            "completion": [{"role": "assistant", "content": row["answer"]}],
        },
        remove_columns=[name for name in rows.column_names if name not in ("image", "solution")],
    )


@pytest.fixture(scope="module")
def sources(pool_dataset, anchor_dataset, test_dataset, vlm_path: str, tmp_path_factory) -> Sources:
    folder = tmp_path_factory.mktemp("sources")
    pool, anchors, test = map(chat_rows, (pool_dataset, anchor_dataset, test_dataset.select(range(2))))
    for name, rows in (("pool", pool), ("anchors", anchors), ("test", test)):
        rows.to_parquet(folder / f"{name}.parquet")
    return Sources(folder, pool, anchors, vlm_path)


def python(sources: Sources, settings: Settings, folder: Path) -> Path:
    scores = ost_hf.score(
        sources.pool, sources.anchors, proxy=sources.proxy, output_dir=folder,
        strategy=settings.strategy, scoring=settings.scoring,
    )  # fmt: skip
    return ost_hf.select(scores, pool=sources.pool, **settings.selection).write(folder)


def python_with_instances_and_files(sources: Sources, settings: Settings, folder: Path) -> Path:
    ost_hf.score(
        sources.file("pool"), {"path": sources.file("anchors")}, proxy=ProxyConfig(**sources.proxy),
        output_dir=str(folder), strategy=settings.strategy, scoring=ScoringConfig.from_mapping(settings.scoring),
        duplicates=DuplicatesConfig(),
    )  # fmt: skip
    return ost_hf.select(str(folder), strategy=settings.strategy, **settings.selection).write(folder / "kept.parquet")


def run_from_yaml(sources: Sources, settings: Settings, folder: Path) -> Path:
    training = {**_TRAINING, "report_to": "none"}
    given = {**sources.sections(settings), "target": {"model": sources.model}, "training": training}
    file = sources.folder / f"{settings.strategy}.yaml"
    file.write_text(dump_yaml({"run_dir": str(folder), **given}))
    assert main(["run", "--config", str(file)]) == 0
    return folder / "selection.parquet"


def stages_from_flags(sources: Sources, settings: Settings, folder: Path) -> Path:
    sections = sources.sections(settings)
    kept = flags({"selection": sections.pop("selection")})
    assert main(["score", "--run_dir", str(folder), *flags(sections)]) == 0
    assert main(["select", "--run_dir", str(folder), *kept]) == 0
    return folder / "selection.parquet"


def flags(sections: dict[str, Any], before: str = "--") -> list[str]:
    """A flag for each field of some sections."""
    return [
        word
        for name, value in sections.items()
        for word in (flags(value, f"{before}{name}.") if isinstance(value, dict) else (f"{before}{name}", str(value)))
    ]


def trainer_with_keywords(sources: Sources, settings: Settings, folder: Path) -> Path:
    trainer = OSTTrainer(
        sources.model, OSTConfig(str(folder), **_TRAINING, report_to=[], **settings.selection),
        train_dataset=sources.pool, proxy=sources.proxy, anchors=sources.anchors,
        strategy=settings.strategy, scoring=settings.scoring,
    )  # fmt: skip
    trainer.select()
    return folder / "ost" / "selection.parquet"


def trainer_with_everything_in_its_configuration(sources: Sources, settings: Settings, folder: Path) -> Path:
    args = OSTConfig(
        str(folder), **_TRAINING, report_to=[], **settings.selection, strategy=settings.strategy,
        proxy=json.dumps(sources.proxy), anchors=sources.file("anchors"), scoring=json.dumps(settings.scoring),
    )  # fmt: skip
    OSTTrainer(sources.model, args, train_dataset=sources.pool).train()
    return folder / "ost" / "selection.parquet"


def trainer_of_trl(sources: Sources, settings: Settings, folder: Path) -> Path:
    args = OSTSFTConfig(str(folder), **_TRAINING, report_to=[], max_length=None, **settings.selection)
    trainer = OSTSFTTrainer(
        sources.model, args, train_dataset=sources.pool, proxy=ProxyConfig(**sources.proxy),
        anchors=sources.file("anchors"), strategy=settings.strategy, scoring=settings.scoring,
    )  # fmt: skip
    trainer.select()
    return folder / "ost" / "selection.parquet"


def arm_of_a_study(sources: Sources, settings: Settings, folder: Path) -> Path:
    """Of one study of all choices, which is run for the first."""
    study = sources.folder / "study"
    if not study.exists():
        sections = [sources.sections(each) for each in CHOICES.values()]
        choosing = ("strategy", "scoring", "selection")
        methods = {each["strategy"]: {name: each[name] for name in choosing} for each in sections}
        common = {name: values for name, values in sections[0].items() if name not in choosing}
        evaluation = {"path": sources.file("test"), "reference_column": "solution", "max_new_tokens": 2}
        training = {**_TRAINING, "report_to": "none"}
        common |= {"target": {"model": sources.model}, "training": training, "evaluation": evaluation}
        given = {"run_dir": str(study), "seeds": [0], "methods": methods, "settings": {"tiny": {}}, "common": common}
        file = sources.folder / "study.yaml"
        file.write_text(dump_yaml(given))
        with pytest.MonkeyPatch.context() as patch:
            run_groups_here(patch)
            assert main(["study", "--config", str(file)]) == 0
    [table] = (study / "tiny" / "seed-0" / settings.strategy).rglob("selection.parquet")
    return table


DOORS: list[Callable[[Sources, Settings, Path], Path]] = [
    python_with_instances_and_files,
    run_from_yaml,
    stages_from_flags,
    trainer_with_keywords,
    trainer_with_everything_in_its_configuration,
    trainer_of_trl,
    arm_of_a_study,
]


@pytest.fixture(scope="module")
def selections(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The selection of each choice, made in Python."""
    return {name: python(sources, settings, tmp_path_factory.mktemp(name)) for name, settings in CHOICES.items()}


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_every_door_keeps_the_same_rows(
    sources: Sources, selections: dict[str, Path], tmp_path: Path, door: Callable[..., Path], choice: str
) -> None:
    table = door(sources, CHOICES[choice], tmp_path / "out")
    expected = selections[choice]
    found, wanted = (ost_hf.Selection.read(path) for path in (table, expected))
    assert found.metadata == wanted.metadata
    assert found.table.to_pylist() == wanted.table.to_pylist()
    assert table.read_bytes() == expected.read_bytes()
    assert table.with_suffix(".json").read_bytes() == expected.with_suffix(".json").read_bytes()


def test_the_two_choices_are_two(selections: dict[str, Path]) -> None:
    kept = {name: ost_hf.Selection.read(path) for name, path in selections.items()}
    assert {name: selection.kept_count for name, selection in kept.items()} == {"auto": 30, "one_step": 18}
    assert "as clean as the anchors" in kept["auto"].explanation or "few anchors" in kept["auto"].explanation
    assert kept["one_step"].explanation == "highest utility first"


@pytest.mark.slow
def test_a_selection_goes_by_the_strategy_of_the_scores(selections: dict[str, Path]) -> None:
    of_one_step = ost_hf.select(selections["one_step"].parent)
    assert (of_one_step.metadata.settings["order"], of_one_step.kept_count) == ("top", 30)
    # A table in memory says the same of itself, and another strategy may be named.
    table = ost_hf.ScoreTable.at(selections["one_step"].parent).read()
    assert ost_hf.select(table).table == of_one_step.table
    assert ost_hf.select(table, strategy="auto").metadata.settings["order"] == "auto"
    assert "drawn from these" in ost_hf.select(selections["auto"].parent, keep_count=3).explanation


def test_a_selection_finds_its_rows(sources: Sources, selections: dict[str, Path]) -> None:
    kept = ost_hf.select(selections["one_step"].parent, keep_count=4)
    rows = kept.rows(sources.pool)
    assert rows.column_names == sources.pool.column_names
    assert rows["completion"] == [sources.pool["completion"][row] for row in sorted(kept.kept["row"].to_pylist())]
    assert kept.rows(sources.file("pool"))["completion"] == rows["completion"]


def test_the_table_of_scores_is_handed_out_in_any_form(sources: Sources, selections: dict[str, Path]) -> None:
    scores = ost_hf.ScoreTable.at(selections["auto"].parent)
    assert "60 rows (60 ok), utility " in repr(scores)
    assert scores.metadata.strategy == "auto"
    assert scores.metadata.settings["second_look"]["rounds"] == 1
    assert scores.metadata.anchors == 12
    frame = scores.to_pandas()
    assert list(frame["p_value_anchors"].unique()) == [12]
    assert scores.to_dataset()["utility"] == frame["utility"].to_list()


def test_balance_goes_by_a_column_of_the_pool_that_was_scored(sources: Sources, selections: dict[str, Path]) -> None:
    scores, pool = selections["one_step"].parent, sources.pool
    with pytest.raises(DataError, match=r"selection\.balance_by: the pool has no column 'kind'; there are: "):
        ost_hf.select(scores, pool=pool, balance_by="kind")
    # A column that no model reads may be added after the scoring.
    kinds = ["a", "b", "b"] * 20
    kept = ost_hf.select(scores, pool=pool.add_column("kind", kinds), balance_by="kind", keep_count=12)  # type: ignore[call-arg]
    assert sorted(kinds[row] for row in kept.kept["row"].to_pylist()) == ["a"] * 4 + ["b"] * 8
    with pytest.raises(DataError, match="the pool has changed since it was scored"):
        ost_hf.select(scores, pool=pool.select(range(59)), balance_by="solution")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scorings": {}}, r"unknown argument of score 'scorings' \(did you mean 'scoring'\?\)"),
        ({"proxy": 3}, "proxy must be a model's name, its folder, a ProxyConfig or a mapping of its fields, got a int"),
        ({"proxy": {"modl": "x"}}, r"unknown field of section proxy 'modl' \(did you mean 'model'\?\)"),
        ({"strategy": "setwise"}, r"strategy must be one of .* \(selection\.order has setwise\)"),
        ({"anchors": None}, "the one_step scorer needs anchors"),
        ({"anchors": 3}, "anchors must be a name, a file, a datasets.Dataset, a list of rows, Rows or a configuration"),
        ({"evaluation": [3]}, "evaluation must be a name, a file"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    sources: Sources, tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    arguments = {"pool": sources.pool, "anchors": sources.anchors, "proxy": sources.proxy, **given}
    with pytest.raises(OSTError, match=message):
        ost_hf.score(**arguments, output_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_selected_is_refused(tmp_path: Path, selections: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"unknown field of section selection 'keep_ration' \(did you mean 'keep_rat"):
        ost_hf.select(selections["auto"].parent, keep_ration=0.3)
    with pytest.raises(ConfigError, match=r"selection\.order 'setwise' goes by columns that the scores lack"):
        ost_hf.select(selections["auto"].parent, order="setwise")
    with pytest.raises(RunDirectoryError, match="no score table in"):
        ost_hf.select(tmp_path)
