"""The doctor: what it measures, what it leaves alone, and what it says about figures."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
import torch
import transformers
import yaml

from ost_hf.cli.main import main
from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.doctor.advice import Findings, warnings_of
from ost_hf.doctor.diagnosis import Diagnosis, Figures, Sample, Setting, Structure, describe, fused_experts
from ost_hf.doctor.examine import diagnose, draw, examine
from ost_hf.doctor.page import page
from ost_hf.doctor.readings import METHODS
from ost_hf.errors import ConfigError, DataError
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.model import Proxy, build_proxy
from ost_hf.scorers.one_step.estimators import Exact
from ost_hf.scoring import clock
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringJob, ScoringRequest
from ost_hf.tables.score_table import ScoreTable

ONE_STEP = ScoringConfig()


def job_of(
    pool: EncodedDataset, anchors: EncodedDataset, config: ScoringConfig = ONE_STEP, exclude: tuple[int, ...] = ()
) -> ScoringJob:
    """What is examined, without a table."""
    excluded = dict.fromkeys(exclude, ("duplicate", ""))
    return ScoringJob(pool, anchors, ProxyConfig("none"), ScoreTable("none"), excluded, config, Path("none"))


@pytest.fixture(scope="module", autouse=True)
def _timed_once() -> Iterator[None]:
    """Nothing here depends on the clock: one pass will do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "_LONG_ENOUGH", 0.0)
        yield


@pytest.fixture(scope="module")
def few_anchors(anchors: EncodedDataset) -> EncodedDataset:
    return EncodedDataset(anchors.rows.select(range(4)), anchors.encoder)


@pytest.fixture(scope="module")
def at_a_tiny_step(_warm_proxy: Proxy, pool: EncodedDataset, few_anchors: EncodedDataset) -> Diagnosis:
    """Ten rows examined at learning rate 1e-7; asserts on the way that the proxy is left as it was."""
    before = {name: value.clone() for name, value in _warm_proxy.model.state_dict().items()}
    config = ONE_STEP.with_options(learning_rate=1e-7)
    diagnosis = examine(_warm_proxy, job_of(pool, few_anchors, config, exclude=(0, 1)), rows=10)
    after = _warm_proxy.model.state_dict()
    assert all(torch.equal(after[name], value) and after[name].dtype == value.dtype for name, value in before.items())
    return diagnosis


def figures(diagnosis: Diagnosis, precision: str, estimator: str, utility: str = "raw") -> Figures:
    names = (precision, estimator, utility)
    [found] = [m.figures for m in diagnosis.measurements if (m.precision, m.estimator, m.utility) == names]
    assert found is not None
    return found


def warnings(structure: Structure) -> str:
    """What is said of a structure alone."""
    sample, setting = Sample(1, 1, 1, {}, 1), Setting("reverse", "raw", "sgd", 1e-4)
    return "; ".join(warnings_of(Findings(structure, sample, setting, [])))


@pytest.mark.slow
def test_every_estimator_is_measured_in_both_precisions(at_a_tiny_step: Diagnosis) -> None:
    measured = [(m.precision, m.estimator, m.utility) for m in at_a_tiny_step.measurements]
    assert measured == [(precision, *method) for precision in ("float32", "bfloat16") for method in METHODS]
    for m in at_a_tiny_step.measurements:
        assert m.figures is not None, m.refused
        assert m.figures.noise >= 0
        assert m.figures.signal > 0
        assert (m.figures.against_float32 is None) == (m.precision == "float32")
        assert m.figures.cost.pool_seconds == pytest.approx(60 / m.figures.cost.rows_per_second)
        assert m.figures.cost.tokens_per_second > m.figures.cost.rows_per_second


@pytest.mark.slow
def test_first_order_in_float32_stands_far_above_its_noise(at_a_tiny_step: Diagnosis) -> None:
    for estimator, utility in METHODS[:2]:
        found = figures(at_a_tiny_step, "float32", estimator, utility)
        assert found.snr > 100
        assert found.spearman is not None
    exact = figures(at_a_tiny_step, "float32", "exact")
    assert exact.spearman == pytest.approx(1)
    assert at_a_tiny_step.second_stage is None  # none is asked for


@pytest.mark.slow
def test_exact_in_bfloat16_at_a_tiny_step_is_called_noise(at_a_tiny_step: Diagnosis) -> None:
    said = [w for w in at_a_tiny_step.warnings if w.startswith("the exact utility at learning rate 1e-07 in bfloat16")]
    assert len(said) == 1
    assert "is under its noise" in said[0]
    assert "use estimator reverse, or dtype float32, or a larger learning rate" in said[0]
    # Its own repeat would not have told: it rounds the same way in any company.
    exact = figures(at_a_tiny_step, "bfloat16", "exact")
    assert exact.against_float32 is not None
    assert exact.against_float32.snr < 1
    assert at_a_tiny_step.recommendation.estimator == "reverse"


@pytest.mark.slow
def test_page_fits_and_holds_every_figure(at_a_tiny_step: Diagnosis) -> None:
    text = page(at_a_tiny_step)
    assert max(map(len, text.splitlines())) <= 110
    for word in ("float32", "bfloat16", "reverse mean_cosine", "forward raw", "exact raw", "warning", "use  "):
        assert word in text
    print(text)


@pytest.mark.slow
def test_command_writes_and_prints_what_it_found(
    tmp_path: Path, vlm_path: str, pool_dataset: datasets.Dataset, anchor_dataset: datasets.Dataset, capsys
) -> None:
    pool_dataset.select(range(8)).to_parquet(tmp_path / "pool.parquet")
    anchor_dataset.select(range(3)).to_parquet(tmp_path / "anchors.parquet")
    given = {
        "run_dir": str(tmp_path / "run"),
        "pool": {"path": str(tmp_path / "pool.parquet")},
        "anchors": {"path": str(tmp_path / "anchors.parquet")},
        "proxy": {"model": vlm_path, "warmup_min_steps": 2, "warmup_batch_size": 4},
        # Left out of the measurement, not in its way.
        "scoring": {
            "per_anchor": True,
            "sketch_size": 4,
            "batch_size": 5,
            "second_look": {"rounds": 1, "min_steps": 2, "batch_size": 4},
        },
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(given))
    assert main(["doctor", "--config", str(tmp_path / "config.yaml")]) == 0
    written = json.loads((tmp_path / "run" / "doctor.json").read_text())
    found = {(m["precision"], m["estimator"], m["utility"]) for m in written["measurements"]}
    assert found == {(precision, *method) for precision in ("float32", "bfloat16") for method in METHODS}
    assert written["structure"]["warmup_steps"] == 2
    assert written["sample"] == {"pool_rows": 8, "drawn": 8, "usable": 8, "statuses": {}, "anchors": 3}
    assert "doctor.json" in capsys.readouterr().out
    # The proxy is the score stage's own: neither makes it again.
    stored = (tmp_path / "run" / "proxy" / "adapter_model.safetensors").stat().st_mtime_ns
    assert main(["score", "--run_dir", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "proxy" / "adapter_model.safetensors").stat().st_mtime_ns == stored


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, ost_hf.cli.main as m\ntry:\n  m.main(['doctor', '--help'])\n"
    code += "except SystemExit: pass\nassert not {'torch', 'transformers', 'datasets', 'peft'} & set(sys.modules)\n"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--scoring.one_step.estimator" in result.stdout


@pytest.mark.slow
def test_refused_estimator_is_a_finding(
    warm_proxy: Proxy, pool: EncodedDataset, few_anchors: EncodedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Steps so short that no precision sees anything of them.
    monkeypatch.setattr("ost_hf.functional.forward.STEP_SHARES", (1e-9,))

    def no_memory(*args) -> None:
        raise torch.OutOfMemoryError("no memory for 3 GiB\nmore lines")

    monkeypatch.setattr(Exact, "__init__", no_memory)
    config = ONE_STEP.with_options(estimator="forward", utility="raw", derivative="central")
    diagnosis = examine(warm_proxy, job_of(pool, few_anchors, config), rows=4)
    refused = {(m.precision, m.estimator): m.refused for m in diagnosis.measurements if m.refused}
    assert set(refused) == {(p, e) for p in ("float32", "bfloat16") for e in ("forward", "exact")}
    assert "at this precision estimator 'forward' says nothing" in str(refused["float32", "forward"])
    assert refused["bfloat16", "exact"].startswith("the device's memory is too small for one anchor of ")
    assert any(w.startswith("the configured estimator forward (raw) cannot score in") for w in diagnosis.warnings)
    assert diagnosis.recommendation.estimator == "reverse"
    assert "there is no exact in float32" in diagnosis.recommendation.reason
    assert "refused   exact raw in float32: the device" in page(diagnosis)


@pytest.mark.slow
def test_quantised_proxy_is_measured_as_it_is(
    warm_proxy: Proxy, pool: EncodedDataset, few_anchors: EncodedDataset
) -> None:
    # What transformers leaves in the configuration of a model that it has loaded quantised.
    warm_proxy.model.get_base_model().config.quantization_config = {"quant_method": "gptq"}
    diagnosis = examine(warm_proxy, job_of(pool, few_anchors), rows=3)
    assert [(m.precision, m.estimator, m.utility) for m in diagnosis.measurements] == [
        ("float32", *method) for method in METHODS
    ]
    assert any("quantised (gptq)" in w and "only this one was measured" in w for w in diagnosis.warnings)


@pytest.mark.slow
def test_cold_proxy_is_named(vlm_path: str, pool: EncodedDataset, few_anchors: EncodedDataset) -> None:
    cold = build_proxy(ProxyConfig(vlm_path, warmup_fraction=0))
    diagnosis = examine(cold, job_of(pool, few_anchors), rows=3)
    assert all("the proxy is cold" in str(m.refused) for m in diagnosis.measurements)
    assert diagnosis.warnings[0].startswith("the proxy is cold")
    assert diagnosis.recommendation.estimator is None
    assert "warm it up, or set scoring.one_step.update_rule to sgd" in diagnosis.recommendation.reason


def test_rows_are_drawn_by_seed_without_the_excluded(pool: EncodedDataset) -> None:
    rows = [row.row for row in draw(pool, {3, 4}, 20, seed=0)]
    assert rows == sorted(set(rows)) == [row.row for row in draw(pool, {3, 4}, 20, seed=0)]
    assert not {3, 4} & set(rows)
    assert rows != [row.row for row in draw(pool, {3, 4}, 20, seed=1)]
    assert len(draw(pool, {3, 4}, 1000, seed=0)) == len(pool) - 2


def test_too_few_usable_rows_are_an_error_that_counts_them(
    warm_proxy: Proxy, processor, few_anchors: EncodedDataset
) -> None:
    rows = Rows(datasets.Dataset.from_dict({"question": ["a", "b", "c"], "answer": ["answer: 2", "", ""]}))
    pool = EncodedDataset(rows, Encoder(processor))
    with pytest.raises(DataError, match=r"1 of 3 rows .* at least 3 are needed; the others are: \{'no_labels': 2\}"):
        examine(warm_proxy, job_of(pool, few_anchors))


def test_other_scorers_are_refused(tmp_path: Path, vlm_path: str, pool: EncodedDataset) -> None:
    with pytest.raises(ConfigError, match=r"the doctor examines the one_step scorer, got scoring\.scorer 'random'"):
        diagnose(ScoringRequest(tmp_path, pool.rows, pool.rows, ProxyConfig(vlm_path), ScoringConfig("random")))


def test_layers_around_the_adapted_ones_are_counted(vlm_path: str) -> None:
    some = ProxyConfig(vlm_path, lora_target_modules=r".*language_model\.layers\.[12]\..*q_proj")
    structure = describe(build_proxy(some))
    assert (structure.layers, structure.layers_below, structure.layers_above) == (4, 1, 1)
    assert structure.by_name == {"q_proj": 2}
    assert "1 lie below the first adapted one, 1 above the last" in warnings(structure)


def test_fused_experts_are_out_of_reach_and_said_so(tmp_path: Path, text_path: str) -> None:
    transformers.AutoTokenizer.from_pretrained(text_path).save_pretrained(tmp_path)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "moe_intermediate_size": 8, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 400}
    config = transformers.Qwen3MoeConfig(**sizes, **heads, num_experts=4, num_experts_per_tok=2)
    transformers.Qwen3MoeForCausalLM(config).save_pretrained(tmp_path)
    structure = describe(build_proxy(ProxyConfig(str(tmp_path))))
    assert structure.fused_experts == {
        "layers.*.mlp.experts.gate_up_proj": 2 * 4 * 16 * 16,
        "layers.*.mlp.experts.down_proj": 2 * 4 * 16 * 8,
    }
    assert set(structure.by_name) == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert "LoRA does not reach them: utilities see the other layers" in warnings(structure)


def test_a_convolution_is_no_expert() -> None:
    assert fused_experts(torch.nn.Sequential(torch.nn.Conv1d(4, 4, 3), torch.nn.Linear(4, 4))) == {}
