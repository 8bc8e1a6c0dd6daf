"""The baselines without gradients: each against a slow, obvious reference."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from scored import build_scorer, records
from torch.nn.functional import cosine_similarity, cross_entropy

from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.encoding.encoded import Encoded
from ost_hf.data.rows import Rows
from ost_hf.errors import DataError, ModelError
from ost_hf.models import load_model, load_processing_class
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.model import Proxy, build_proxy
from ost_hf.scorers.ifd import answer_alone, start_token
from ost_hf.scorers.inputs import mean_anchor_loss
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringRequest
from ost_hf.scoring.runner import score_pool
from ost_hf.tables.columns import SCHEMA

MODEL_SCORERS = ["perplexity", "ifd", "rds"]
ROWS = [0, 7, 13, 21, 34]


@pytest.fixture(scope="module")
def mixed(pool_dataset: datasets.Dataset, processor: Any) -> EncodedDataset:
    """Rows with and without an image, with one and with two answers, in one table."""
    image = pool_dataset[0]["image"]
    turns = [("What is 1 + 1?", "answer: 2"), ("And 2 + 2?", "left 2, right 2. answer: 4")]
    messages = [
        {"role": role, "content": [{"type": "text", "text": text}]}
        for question, answer in turns
        for role, text in (("user", question), ("assistant", answer))
    ]
    with_image = copy.deepcopy(messages)
    with_image[0]["content"].insert(0, {"type": "image"})
    rows = [(messages[:2], []), (messages, []), (with_image[:2], [image]), (with_image, [image])]
    table = {"messages": [list(m) for m, _ in rows], "images": [i for _, i in rows]}
    return EncodedDataset(Rows(datasets.Dataset.from_list(_as_rows(table))), Encoder(processor))


def _as_rows(table: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [{"messages": m, "images": i} for m, i in zip(table["messages"], table["images"], strict=True)]


def build(name: str, proxy: Proxy, anchors: EncodedDataset | None = None, **settings: Any) -> Any:
    return build_scorer(ScoringConfig(name, **settings), proxy=proxy, anchors=anchors)


def encoded(pool: EncodedDataset, rows: list[int]) -> list[Encoded]:
    return [pool.encode(row) for row in rows]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("perplexity", {}),
        ("ifd", {}),
        ("rds", {"per_anchor": True, "group_by": "operation"}),
        ("one_step", {"per_anchor": True, "group_by": "operation", "sketch_size": 8}),
        ("length", {}),
        ("random", {}),
    ],
)
def test_a_scorer_gives_the_columns_that_it_declares(
    name: str, settings: dict[str, Any], pool: EncodedDataset, anchors: EncodedDataset, warm_proxy: Proxy
) -> None:
    config = ScoringConfig(name, **settings)
    given = records(build_scorer(config, pool=pool, proxy=warm_proxy, anchors=anchors), encoded(pool, ROWS))[0]
    # `grad_norm` goes with one estimator, and no selection goes by it.
    further = set(given) - set(SCHEMA.names) - {"grad_norm"}
    assert config.columns == {"group:" if column.startswith("group:") else column for column in further}


def utilities(scorer: Any, rows: list[Encoded]) -> torch.Tensor:
    return torch.tensor([score["utility"] for score in records(scorer, rows)], dtype=torch.float64)


def plain_loss(model: Any, features: dict[str, torch.Tensor]) -> float:
    """Mean cross-entropy of one row's answer, from all its logits."""
    inputs = {key: value[None] if value.dim() == 1 else value for key, value in features.items() if key != "labels"}
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    return float(cross_entropy(logits[:-1], features["labels"][1:], ignore_index=-100))


def test_length_is_the_number_of_supervised_tokens(pool: EncodedDataset) -> None:
    rows = encoded(pool, ROWS)
    assert utilities(build_scorer(ScoringConfig("length")), rows).tolist() == [
        int((row.features["labels"] != -100).sum()) for row in rows if row.features is not None
    ]


def test_perplexity_is_minus_the_plain_loss(warm_proxy: Proxy, pool: EncodedDataset, mixed: EncodedDataset) -> None:
    for rows in (encoded(pool, ROWS), encoded(mixed, [0, 1, 2, 3])):
        for row, score in zip(rows, records(build("perplexity", warm_proxy), rows), strict=True):
            assert row.features is not None
            assert score["loss"] == pytest.approx(plain_loss(warm_proxy.model, row.features), rel=1e-5)
            assert score["utility"] == -score["loss"]


def test_ifd_is_the_ratio_of_two_plain_forward_passes(
    warm_proxy: Proxy, pool: EncodedDataset, mixed: EncodedDataset
) -> None:
    end_of_text = warm_proxy.processing_class.tokenizer.eos_token_id
    for rows in (encoded(pool, ROWS), encoded(mixed, [0, 1, 2, 3])):
        for row, score in zip(rows, records(build("ifd", warm_proxy), rows), strict=True):
            assert row.features is not None
            answer = [int(token) for token in row.features["labels"] if token != -100]
            ids, labels = torch.tensor([end_of_text, *answer]), torch.tensor([-100, *answer])
            alone = plain_loss(warm_proxy.model, {"input_ids": ids, "labels": labels})
            after_prompt = plain_loss(warm_proxy.model, row.features)
            assert score["loss"] == pytest.approx(after_prompt, rel=1e-5)
            assert score["answer_loss"] == pytest.approx(alone, rel=1e-5)
            assert score["ifd"] == pytest.approx(after_prompt / alone, rel=1e-5)


def test_rows_whose_prompt_does_not_help_come_last(warm_proxy: Proxy, pool: EncodedDataset) -> None:
    # An untrained proxy: the prompt helps it about as often as not.
    scores = records(build("ifd", build_proxy(ProxyConfig(warm_proxy.config.model))), encoded(pool, list(range(30))))
    harmed = [score for score in scores if score["ifd"] >= 1]
    helped = [score for score in scores if score["ifd"] < 1]
    assert harmed
    assert helped
    assert all(score["utility"] == score["ifd"] for score in helped)
    assert all(score["utility"] == -score["ifd"] for score in harmed)
    assert max(score["utility"] for score in harmed) < min(score["utility"] for score in helped)


def test_answer_alone_predicts_the_tokens_that_the_whole_row_predicts(mixed: EncodedDataset, processor: Any) -> None:
    for row in encoded(mixed, [0, 1, 2, 3]):
        assert row.features is not None
        alone = answer_alone(row.features, start=7)
        assert set(alone) == {"input_ids", "attention_mask", "labels", "mm_token_type_ids"}
        assert alone["input_ids"][0] == 7
        assert alone["labels"][0] == -100
        assert torch.equal(alone["labels"][1:], row.features["labels"][row.features["labels"] != -100])
        assert torch.equal(alone["labels"][1:], alone["input_ids"][1:])
        assert alone["attention_mask"].all()
    # A row that begins with its answer: the first token is predicted in neither.
    ids = torch.tensor([3, 4, 5])
    assert answer_alone({"input_ids": ids, "labels": ids}, start=7)["labels"].tolist() == [-100, 4, 5]


def test_a_text_starts_with_the_first_special_token_there_is(processor: Any) -> None:
    tokenizer = copy.deepcopy(processor.tokenizer)
    assert start_token(processor) == tokenizer.eos_token_id
    tokenizer.bos_token = "<|im_start|>"
    assert start_token(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_start|>")
    tokenizer.bos_token = tokenizer.eos_token = None
    assert start_token(tokenizer) == tokenizer.pad_token_id
    tokenizer.pad_token = None
    with pytest.raises(ModelError, match="no beginning-of-sequence, end-of-sequence or padding token"):
        start_token(tokenizer)


def test_mean_anchor_loss_is_the_mean_of_each_anchors_loss(warm_proxy: Proxy, anchors: EncodedDataset) -> None:
    scores = records(build("perplexity", warm_proxy), encoded(anchors, list(range(len(anchors)))))
    mean = sum(score["loss"] for score in scores) / len(anchors)
    assert mean_anchor_loss(warm_proxy.model, anchors) == pytest.approx(mean, rel=1e-5)


def test_random_scores_are_a_function_of_seed_and_id(pool: EncodedDataset) -> None:
    batch = encoded(pool, list(range(10)))
    first, again, other = (
        utilities(build_scorer(ScoringConfig(scorer="random", seed=seed)), rows).tolist()
        for seed, rows in ((0, batch), (0, batch[::-1]), (1, batch))
    )
    assert first == again[::-1]
    assert first != other
    assert all(0 <= utility < 1 for utility in first)


def plain_embedding(model: Any, features: dict[str, torch.Tensor]) -> torch.Tensor:
    """The position-weighted mean of one row's last hidden states, token by token."""
    inputs = {key: value[None] if value.dim() == 1 else value for key, value in features.items() if key != "labels"}
    with torch.no_grad():
        hidden = model(**inputs, output_hidden_states=True).hidden_states[-1][0].double()
    total = sum((t + 1) * vector for t, vector in enumerate(hidden))
    return total / sum(range(1, len(hidden) + 1))


def test_rds_is_the_largest_cosine_of_the_base_models_embeddings(
    warm_proxy: Proxy, pool: EncodedDataset, mixed: EncodedDataset, anchors: EncodedDataset
) -> None:
    base = load_model(warm_proxy.config).eval()
    of_anchors = [plain_embedding(base, anchors[row]) for row in range(len(anchors))]
    scorer = build("rds", warm_proxy, anchors, per_anchor=True)
    for rows in (encoded(pool, ROWS), encoded(mixed, [0, 1, 2, 3])):
        for row, score in zip(rows, records(scorer, rows), strict=True):
            assert row.features is not None
            own = plain_embedding(base, row.features)
            cosines = [float(cosine_similarity(own, anchor, dim=0)) for anchor in of_anchors]
            assert score["anchor_similarities"] == pytest.approx(cosines, abs=1e-5)
            assert score["utility"] == pytest.approx(max(cosines), abs=1e-5)


def test_rds_leaves_the_proxy_as_it_was(warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset) -> None:
    before = records(build("perplexity", warm_proxy), encoded(pool, [0]))[0]["loss"]
    records(build("rds", warm_proxy, anchors), encoded(pool, [0]))
    assert records(build("perplexity", warm_proxy), encoded(pool, [0]))[0]["loss"] == before
    assert not any(parameter.requires_grad for parameter in warm_proxy.model.parameters())


def test_rds_gives_each_group_its_nearest_anchor(
    warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset
) -> None:
    operations = list(anchors.rows.dataset["operation"])
    scorer = build("rds", warm_proxy, anchors, group_by="operation", per_anchor=True)
    score = records(scorer, encoded(pool, [3]))[0]
    for name in set(operations):
        members = [
            u for u, operation in zip(score["anchor_similarities"], operations, strict=True) if operation == name
        ]
        assert score[f"group:{name}"] == pytest.approx(max(members))
    assert score["utility"] == pytest.approx(max(score[f"group:{name}"] for name in set(operations)))
    assert set(records(build("rds", warm_proxy, anchors), encoded(pool, [3]))[0]) == {"utility"}


@pytest.mark.parametrize("name", MODEL_SCORERS)
def test_scores_do_not_depend_on_batch_size_padding_or_order(
    name: str, warm_proxy: Proxy, pool: EncodedDataset, mixed: EncodedDataset, anchors: EncodedDataset
) -> None:
    rows = [*encoded(pool, ROWS), *encoded(mixed, [0, 1, 2, 3])]
    assert len({row.length for row in rows}) > 3, "the rows should need padding"
    scorer = build(name, warm_proxy, anchors)
    together = utilities(scorer, rows)
    alone = torch.cat([utilities(scorer, [row]) for row in rows])
    backwards = utilities(scorer, rows[::-1]).flip(0)
    assert (together - alone).abs().max() < 1e-4 * together.std()
    assert (together - backwards).abs().max() < 1e-4 * together.std()


@pytest.mark.parametrize("name", MODEL_SCORERS)
def test_text_models_are_scored_too(name: str, text_path: str) -> None:
    table = {"question": ["1 + 1", "2 + 2", "What is three and four?"], "answer": ["2", "4", "It is seven."]}
    proxy = build_proxy(ProxyConfig(text_path))
    rows = EncodedDataset(Rows(datasets.Dataset.from_dict(table)), Encoder(load_processing_class(proxy.config)))
    scores = records(build(name, proxy, rows), encoded(rows, [0, 1, 2]))
    assert all(math.isfinite(score["utility"]) for score in scores)
    # With the pool as its own anchors every row is its own nearest.
    assert name != "rds" or all(score["utility"] == pytest.approx(1, abs=1e-6) for score in scores)


def test_unusable_anchor_is_an_error_that_names_it(warm_proxy: Proxy, processor: Any) -> None:
    rows = Rows(datasets.Dataset.from_dict({"question": ["1 + 1", "2 + 2"], "answer": ["answer: 2", ""]}))
    with pytest.raises(DataError, match=r"1 of 2 anchors cannot be used, such as row 1 \(no_labels"):
        build("rds", warm_proxy, EncodedDataset(rows, Encoder(processor)))


def test_anchors_are_taken_fewer_at_a_time_when_memory_is_short(
    warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = utilities(build("rds", warm_proxy, anchors), encoded(pool, [0]))
    largest, whole = 2, warm_proxy.model.forward

    def on_a_small_device(**inputs: torch.Tensor) -> Any:
        if len(inputs["input_ids"]) > largest:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(**inputs)

    monkeypatch.setattr(warm_proxy.model, "forward", on_a_small_device)
    assert utilities(build("rds", warm_proxy, anchors), encoded(pool, [0])) == pytest.approx(expected, abs=1e-6)
    largest = 0
    with pytest.raises(ModelError, match=r"too small for one anchor of \d+ tokens"):
        build("rds", warm_proxy, anchors)


@pytest.mark.parametrize(
    ("name", "columns"),
    [("length", set()), ("perplexity", set()), ("ifd", {"ifd", "answer_loss"}), ("rds", {"anchor_similarities"})],
)
def test_a_pool_is_scored(
    name: str, columns: set[str], tmp_path: Path, vlm_path: str, pool_dataset, anchor_dataset
) -> None:
    anchors = Rows(anchor_dataset) if name == "rds" else None
    proxy = ProxyConfig(vlm_path, warmup_fraction=0.1, warmup_min_steps=2, warmup_batch_size=4)
    scoring = ScoringConfig(name, per_anchor=name == "rds")
    table = score_pool(ScoringRequest(tmp_path, Rows(pool_dataset), anchors, proxy, scoring))
    rows = table.read().to_pylist()
    assert [row["row"] for row in rows] == list(range(len(pool_dataset)))
    assert all(row["status"] == "ok" and math.isfinite(row["utility"]) for row in rows)
    assert columns <= set(rows[0])
    assert all((row["loss"] is not None) == (name in ("perplexity", "ifd")) for row in rows)
    assert (tmp_path / "proxy").exists() == (name != "length")
