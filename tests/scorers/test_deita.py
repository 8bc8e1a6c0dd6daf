"""DEITA: against a reference that asks the models one prompt at a time, and from the pool to the diverse rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc
import pytest
import torch
import transformers
from scored import build_scorer

from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, DataError, ModelError
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scorers.deita import scorer as deita
from ost_hf.scorers.deita.scorer import EmbeddingModel, RatingModel, in_batches
from ost_hf.scorers.protocol import Score
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringRequest
from ost_hf.scoring.runner import score_pool
from ost_hf.selection.diversity import diverse_order

COMPLEXITY, QUALITY = "Hard? {{ question }}\nHard: ", "{{ question }}\n{{ answer }}\nGood: "
# Questions and answers, turn by turn.
TALKS = [
    [("What is 1 + 1?", "2")],
    [("Say something long, and then a little more of it.", "So be it: a long answer, with many words in it.")],
    [("Hello", "Hi"), ("What is 2 + 2?", "4"), ("Thanks. And 3 + 3, in words please?", "Six")],
    [("Count", "1 2 3 4 5 6"), ("Back", "6 5 4 3 2 1")],
    [("What is 1 + 1?", "3")],
    [("What is 1 + 1?", "2")],
]


def as_rows(talks: list[list[tuple[str, str]]]) -> Rows:
    def messages(talk: list[tuple[str, str]]) -> list[dict[str, str]]:
        pairs = [(("user", question), ("assistant", answer)) for question, answer in talk]
        return [{"role": role, "content": text} for pair in pairs for role, text in pair]

    return Rows(datasets.Dataset.from_list([{"messages": messages(talk)} for talk in talks]))


@pytest.fixture(scope="module")
def pool(text_path: str) -> EncodedDataset:
    return EncodedDataset(as_rows(TALKS), Encoder(transformers.AutoTokenizer.from_pretrained(text_path)))


@pytest.fixture(scope="module")
def other_path(text_path: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A second untrained Qwen3, with larger weights: its ratings differ from one another."""
    folder = tmp_path_factory.mktemp("other_qwen3")
    torch.manual_seed(1)
    config = transformers.AutoConfig.from_pretrained(text_path, initializer_range=0.3)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(text_path).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def settings(text_path: str, other_path: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two raters, an embedding model, and prompts that fit into their 512 tokens."""
    folder = tmp_path_factory.mktemp("prompts")
    (folder / "complexity.jinja").write_text(COMPLEXITY)
    (folder / "quality.jinja").write_text(QUALITY)
    return {
        "complexity_model": other_path,
        "quality_model": text_path,
        "embedding_model": other_path,
        "complexity_prompt_file": str(folder / "complexity.jinja"),
        "quality_prompt_file": str(folder / "quality.jinja"),
    }


def with_models(options: dict[str, Any], **more: Any) -> ScoringConfig:
    return ScoringConfig("deita", sections={"deita": options}, **more)


def scored(pool: EncodedDataset, settings: dict[str, Any], rows: list[int] | None = None, **more: Any) -> list[Score]:
    scorer = build_scorer(with_models(settings, **more), pool=pool)
    return scorer.score([pool.encode(row) for row in (range(len(pool)) if rows is None else rows)])


def slow_rating(path: str, prompt: str) -> float:
    """The definition: the whole prompt through the model, probabilities of six words at the end."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModelForCausalLM.from_pretrained(path)
    digits = [tokenizer.convert_tokens_to_ids(digit) for digit in "123456"]
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer(prompt)["input_ids"]])).logits[0, -1].double()
    chances = [float(logits[token].exp()) for token in digits]
    return sum(number * chance for number, chance in enumerate(chances, start=1)) / sum(chances)


def slow_embedding(path: str, text: str) -> np.ndarray:
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModel.from_pretrained(path)
    with torch.no_grad():
        return model(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0].mean(0).numpy()


def test_scores_are_the_definition_one_prompt_at_a_time(pool: EncodedDataset, settings) -> None:
    scores = scored(pool, settings)
    for talk, score in zip(TALKS, scores, strict=True):
        complexity = [slow_rating(settings["complexity_model"], f"Hard? {question}\nHard: ") for question, _ in talk]
        quality = [slow_rating(settings["quality_model"], f"{question}\n{answer}\nGood: ") for question, answer in talk]
        expected = sum(c * q for c, q in zip(complexity, quality, strict=True))
        assert score.utility == pytest.approx(expected, rel=1e-5)
        assert score.columns["complexity"] == pytest.approx(sum(complexity), rel=1e-5)
        assert score.columns["quality"] == pytest.approx(sum(quality), rel=1e-5)
        text = "\n\n".join(said for turn in talk for said in turn)
        assert score.columns["sketch"] == pytest.approx(slow_embedding(settings["embedding_model"], text), abs=1e-5)
    # The models tell the rows apart, or the comparison would show little.
    assert len({round(score.columns["complexity"], 3) for score in scores}) >= 4


def test_scores_do_not_depend_on_batch_size_padding_or_order(pool: EncodedDataset, settings) -> None:
    whole = scored(pool, settings)
    small = scored(pool, settings, list(range(len(pool)))[::-1], batch_tokens=64)[::-1]
    alone = [scored(pool, settings, [row], batch_tokens=1)[0] for row in range(len(pool))]
    for one, other, third in zip(whole, small, alone, strict=True):
        assert one.utility == pytest.approx(other.utility, rel=1e-5)
        assert one.utility == pytest.approx(third.utility, rel=1e-5)
        assert one.columns["sketch"] == pytest.approx(other.columns["sketch"], abs=1e-5)
        assert one.columns["sketch"] == pytest.approx(third.columns["sketch"], abs=1e-5)


def test_models_without_a_choice_of_logits_rate_alike(pool: EncodedDataset, settings) -> None:
    scorer = build_scorer(with_models(settings), pool=pool)
    batch = [pool.encode(row) for row in range(len(pool))]
    some = [score.utility for score in scorer.score(batch)]
    for rater in scorer.raters.values():
        assert rater._picks
        rater._picks = False
    assert [score.utility for score in scorer.score(batch)] == pytest.approx(some, rel=1e-6)


def test_from_a_pool_to_its_diverse_rows(tmp_path: Path, pool: EncodedDataset, settings, text_path: str) -> None:
    config = with_models(settings, part_size=4)
    table = score_pool(ScoringRequest(tmp_path / "run", pool.rows, None, ProxyConfig(text_path), config)).read()
    assert set(table["status"].to_pylist()) == {"ok"}
    assert [round(u, 4) for u in table["utility"].to_pylist()] == [
        round(score.utility or 0, 4) for score in scored(pool, settings)
    ]
    # As docs/baselines.md has it.
    table = table.filter(pc.field("utility").is_valid())
    embeddings = np.array(table["sketch"].to_pylist(), dtype=np.float32)
    taken = diverse_order(
        table["utility"].to_pylist(), embeddings, threshold=1e-4, keys=table["example_id"].to_pylist()
    )
    # Rows 0 and 5 say the same.
    assert len({0, 5} & set(taken)) == 1
    assert {1, 2, 3, 4} < set(taken)


def test_a_row_that_a_rater_cannot_read_whole_has_a_status(text_path: str, settings) -> None:
    rows = as_rows([*TALKS[:1], [("a" * 300, "b" * 300)], *TALKS[1:2]])
    long_pool = EncodedDataset(rows, Encoder(transformers.AutoTokenizer.from_pretrained(text_path)))
    first, long, last = scored(long_pool, settings)
    assert (long.utility, long.status) == (None, "too_long")
    assert long.detail.startswith("quality: a prompt of 6")
    assert long.detail.endswith(" tokens, and the model reads 512")
    short = scored(long_pool, settings, [0, 2])
    assert [first.utility, last.utility] == pytest.approx([score.utility for score in short], rel=1e-6)


def test_embeddings_are_of_the_beginning_of_a_long_text(text_path: str) -> None:
    model = EmbeddingModel(text_path)
    ids = [model.encode("xyz " * repeats) for repeats in (200, 300)]
    assert [len(row) for row in ids] == [512, 512]
    assert torch.equal(*model(ids))


def test_memory_that_is_too_small_halves_the_batches(pool: EncodedDataset, settings, monkeypatch) -> None:
    expected = [score.utility for score in scored(pool, settings)]
    sizes: list[int] = []
    rate = RatingModel.__call__

    def on_a_small_device(self: RatingModel, sequences: list[list[int]]) -> torch.Tensor:
        if len(sequences) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        sizes.append(len(sequences))
        return rate(self, sequences)

    monkeypatch.setattr(RatingModel, "__call__", on_a_small_device)
    assert [score.utility for score in scored(pool, settings)] == pytest.approx(expected, rel=1e-6)
    assert sum(sizes) == 2 * sum(map(len, TALKS))

    def on_a_tiny_device(self: RatingModel, sequences: list[list[int]]) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(RatingModel, "__call__", on_a_tiny_device)
    with pytest.raises(torch.OutOfMemoryError):
        scored(pool, settings, [0])


def test_batches_hold_no_more_tokens_than_allowed() -> None:
    seen: list[list[int]] = []

    def run(sequences: list[list[int]]) -> torch.Tensor:
        seen.append([len(ids) for ids in sequences])
        return torch.tensor([len(ids) for ids in sequences])

    lengths = [5, 1, 30, 2, 5, 4, 9]
    assert [int(value) for value in in_batches(run, [[0] * length for length in lengths], 12)] == lengths
    assert seen == [[1, 2, 4], [5, 5], [9], [30]]
    assert in_batches(run, [], 12) == []


def test_a_tokenizer_without_single_digits_is_refused(text_path: str, tmp_path: Path, monkeypatch) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(text_path)
    tokenizer.add_tokens([" 4"])
    model = transformers.AutoModelForCausalLM.from_pretrained(text_path)
    monkeypatch.setattr(deita, "_load", lambda name, load: (tokenizer, model))
    with pytest.raises(ModelError, match="does not write each digit from 1 to 6 as one token of its own"):
        RatingModel("odd")


def test_a_prompt_after_which_digits_are_written_otherwise_is_refused(text_path: str, monkeypatch) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(text_path)
    tokenizer.add_tokens(["!1"])
    model = transformers.AutoModelForCausalLM.from_pretrained(text_path)
    monkeypatch.setattr(deita, "_load", lambda name, load: (tokenizer, model))
    rater = RatingModel("odd")
    assert rater.encode("Good: ") == tokenizer("Good: ")["input_ids"]
    with pytest.raises(ModelError, match=r"the prompt ends in 'Good!'.*end the prompt in a colon and a space"):
        rater.encode("Good!")


def test_the_same_model_is_loaded_once_and_its_own_prompts_end_where_a_digit_follows(
    pool: EncodedDataset, text_path: str
) -> None:
    names = dict.fromkeys(("complexity_model", "quality_model", "embedding_model"), text_path)
    scorer = build_scorer(with_models(names), pool=pool)
    assert scorer.raters["complexity"] is scorer.raters["quality"]
    for name, prompt in scorer.prompts.items():
        text = prompt.render(question="Why?", answer="So.", turns=[], system="")
        assert text.endswith("scale from 1 to 6: ")
        assert "Why?" in text
        assert ("So." in text) == (name == "quality")
        assert scorer.raters[name].encode(text) == scorer.raters[name].tokenizer(text)["input_ids"]


def test_images_are_not_seen_and_that_is_said(pool_dataset, processor, settings, caplog) -> None:
    with_images = EncodedDataset(Rows(pool_dataset.select(range(2))), Encoder(processor))
    (score, _) = scored(with_images, settings)
    assert "scorer 'deita' reads text only" in caplog.text
    assert score.status == "ok"


def test_missing_models_are_named(settings) -> None:
    with pytest.raises(
        ConfigError, match=r"'deita' needs scoring\.deita\.quality_model, scoring\.deita\.embedding_mod"
    ):
        with_models({"complexity_model": "m"})


def test_tokenised_rows_are_refused(pool: EncodedDataset, settings, text_path: str) -> None:
    table = {name: [pool[0][name].tolist()] for name in ("input_ids", "labels")}
    rows = Rows(datasets.Dataset.from_dict(table))
    object.__setattr__(rows.config, "tokenizer", text_path)
    with pytest.raises(DataError, match="scorer 'deita' reads text, but the pool's rows are input_ids and labels"):
        build_scorer(with_models(settings), pool=EncodedDataset(rows, pool.encoder))
