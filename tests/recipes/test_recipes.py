"""Every recipe YAML and accelerate config is parsed; the real-hardware studies run but for models, data and steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from here import run_script

from ost_hf.cli.main import main
from ost_hf.runs.config import load_config
from ost_hf.runs.train import training_arguments
from ost_hf.study.config import load_study
from ost_hf.study.plan import arms, configuration, groups, prepare_command, require_steps

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*/*.yaml"))
ACCELERATE = sorted((ROOT / "accelerate_configs").glob("*.yaml"))
# A second look of few steps.
SHORT = json.dumps({"second_look": {"rounds": 1, "epochs": 0.1, "min_steps": 2, "batch_size": 4}})
STUDIES = [path for path in RECIPES if path.parent.name != "handwritten_arithmetic"]


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def run(*words: str) -> str:
    result = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, env={**os.environ}, cwd=ROOT
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-5000:]
    return result.stdout


def test_there_are_the_configs_promised() -> None:
    assert {path.stem for path in ACCELERATE} == {
        "cpu", "single_gpu", "multi_gpu", "deepspeed_zero2", "deepspeed_zero3", "fsdp2", "multi_node",
    }  # fmt: skip
    assert {name_of(path) for path in STUDIES} >= {"qwen3_vl_math/run.yaml", "qwen3_text_math/run.yaml"}


@pytest.mark.parametrize("path", ACCELERATE, ids=name_of)
def test_accelerate_config_is_one_that_accelerate_knows(path: Path) -> None:
    config = load_config_from_file(str(path))
    assert config.num_processes >= 1
    parser = launch_command_parser()
    assert parser.parse_args(["--config_file", str(path), "script.py"]).config_file == str(path)


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_recipe_is_a_valid_configuration(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = load_config(str(path), {}, run_dir="runs/parsed")
    config.require("pool", "anchors", "proxy", "target", "evaluation")
    for stage in ("score", "train", "evaluate"):
        file = config.accelerate.file_for(stage)
        assert file is None or Path(file).is_file()
    arguments = training_arguments(config)
    assert arguments.learning_rate == config.training["learning_rate"]


@pytest.mark.slow
@pytest.mark.parametrize("path", STUDIES, ids=name_of)
def test_study_runs_but_for_models_data_and_steps(
    path: Path, tmp_path: Path, vlm_path: str, text_path: str, pool_dataset, anchor_dataset, test_dataset, monkeypatch
) -> None:
    monkeypatch.chdir(ROOT)
    given = yaml.safe_load(path.read_text())
    vision = "VL" in given["target"]["model"]
    write = write_messages if vision else write_problems
    for section, rows, count in (
        ("pool", pool_dataset, 24),
        ("anchors", anchor_dataset, 8),
        ("evaluation", test_dataset, 8),
    ):
        write(rows.select(range(count)), tmp_path / f"{section}.parquet")
    model = vlm_path if vision else text_path
    overrides = {
        # Models and data.
        "proxy.model": model, "target.model": model,
        "pool.path": tmp_path / "pool.parquet", "anchors.path": tmp_path / "anchors.parquet",
        "evaluation.path": tmp_path / "evaluation.parquet",
        "pool.split": "train", "anchors.split": "train", "evaluation.split": "train",
        # Steps and sizes; and what only an accelerator can do.
        "anchors.size": 6, "evaluation.max_new_tokens": 4, "training.max_steps": 2, "training.save_steps": 2,
        "proxy.warmup_min_steps": 2, "proxy.warmup_batch_size": 4, "training.bf16": "false",
        "scoring.second_look.min_steps": 2, "scoring.second_look.batch_size": 4,
        "scoring.second_look.epochs": 0.1,
        "training.gradient_accumulation_steps": 1, "scoring.num_workers": 0, "training.dataloader_num_workers": 0,
        "proxy.dtype": "float32", "target.dtype": "float32",
        "accelerate.config_file": "null", "accelerate.score": "null", "accelerate.train": "null",
        "accelerate.evaluate": "null",
    }  # fmt: skip
    flags = [word for name, value in overrides.items() for word in (f"--{name}", str(value))]
    assert main(["run", "--config", str(path), "--run_dir", str(tmp_path / "run"), *flags]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["rows"] == 8
    assert len(metrics["by_group"]) > 1
    results = json.loads((tmp_path / "run" / "target" / "train_results.json").read_text())
    assert results["train_rows_kept"] == results["train_rows_pool"] / 2 == 12


def write_messages(rows: datasets.Dataset, path: Path) -> None:
    """The shape that qwen3_vl_math/prepare.py writes."""
    converted = rows.map(
        lambda row: {
            "images": [row["image"]],
            "messages": [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}],
            "source": row["operation"],
        },
        remove_columns=rows.column_names,
    )
    converted.to_parquet(path)


def write_problems(rows: datasets.Dataset, path: Path) -> None:
    """The columns of OpenR1-Math-220k and MATH-500; each row gets a text of its own."""
    converted = rows.map(
        lambda row, index: {
            "problem": f"{row['question']} ({path.stem} {index})",
            "answer": row["solution"],
            "solution": row["answer"],
            "subject": row["operation"],
        },
        with_indices=True,
        remove_columns=rows.column_names,
    )
    if path.stem == "pool":
        messages = [[{"role": "user", "content": "long thinking"}]] * len(converted)
        converted = converted.add_column("messages", messages)
    converted.to_parquet(path)


@pytest.mark.slow
def test_vlm_sft_runs_under_the_launcher(vlm_path: str, pool_dataset, anchor_dataset, tmp_path: Path) -> None:
    pool_dataset.select(range(24)).to_parquet(tmp_path / "pool.parquet")
    anchor_dataset.select(range(6)).to_parquet(tmp_path / "anchors.parquet")
    run(
        "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/cpu.yaml", "--main_process_port=0",
        "recipes/vlm_sft.py", "--model", vlm_path, "--proxy", vlm_path, "--pool", str(tmp_path / "pool.parquet"),
        "--anchors", str(tmp_path / "anchors.parquet"), "--keep_ratio", "0.5", "--output_dir", str(tmp_path / "out"),
        "--scoring", SHORT, "--max_steps", "2", "--save_strategy", "no", "--use_cpu", "true",
    )  # fmt: skip
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert (tmp_path / "out" / "ost" / "selection.parquet").exists()


@pytest.mark.slow
def test_text_sft_runs(text_path: str, tmp_path: Path) -> None:
    for name, start in (("pool", 0), ("anchors", 100)):
        rows = [{"prompt": f"{i} + {i}?", "completion": f"answer: {2 * i}"} for i in range(start, start + 16)]
        datasets.Dataset.from_list(rows).to_json(tmp_path / f"{name}.jsonl")
    tokenizer_config = Path(text_path) / "tokenizer_config.json"
    assert tokenizer_config.exists()
    run(
        "recipes/text_sft.py", "--model", text_path, "--proxy", text_path, "--scoring", SHORT,
        "--pool", str(tmp_path / "pool.jsonl"), "--anchors", str(tmp_path / "anchors.jsonl"), "--keep_count", "10",
        "--output_dir", str(tmp_path / "out"), "--max_steps", "2", "--save_strategy", "no", "--use_cpu", "true",
        "--max_length", "64",
    )  # fmt: skip
    assert (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize(
    "script", ["vlm_sft.py", "text_sft.py", "handwritten_arithmetic/run.py", "qwen3_vl_math/prepare.py"]
)
def test_help_of_scripts(script: str) -> None:
    assert "usage" in run_script(ROOT / "recipes" / script, "--help")


def test_help_of_the_checkpoint_maker() -> None:
    assert "--output" in run_script(ROOT / "scripts" / "make_tiny_qwen3_vl.py", "--help")


COMPARISONS = sorted((Path(__file__).parents[2] / "recipes").glob("*/studies/*.yaml"))


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.stem)
def test_every_arm_of_every_study_has_a_right_configuration(path: Path) -> None:
    study = load_study(path)
    assert study.run_dir == f"runs/{path.stem}"
    for group in groups(study):
        assert prepare_command(study, group)
        for method in study.methods:
            for arm in arms(study, method):
                config = configuration(study, group, method, arm)
                assert config.proxy is not None
                assert config.target is not None
                if arm.protocol is not None:
                    require_steps(config, method)


def test_gated_studies_use_no_development_seed() -> None:
    """Defaults were chosen on seeds below 100."""
    assert len(COMPARISONS) >= 8
    assert all(seed >= 100 for path in COMPARISONS for seed in load_study(path).seeds)
