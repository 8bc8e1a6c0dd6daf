"""What the judge is shown, how its reply is read, and which options are refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import datasets
import jinja2
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from chat_server import asks
from scored import build_scorer

from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, DataError
from ost_hf.scorers.deita.options import DeitaOptions
from ost_hf.scorers.judge.options import JudgeOptions
from ost_hf.scorers.judge.scorer import read_rating, scale_of
from ost_hf.scorers.prompt_files import load_prompt
from ost_hf.scorers.prompts import Conversation, Turn, named_model, read_conversation, render


def judges_prompt(options: JudgeOptions) -> jinja2.Template:
    return load_prompt("judge", options, "prompt_file", scale_of(options))


def test_the_prompt_holds_the_whole_conversation(pool_dataset: datasets.Dataset) -> None:
    def said(role: str, *parts: Any, **more: Any) -> dict[str, Any]:
        content = [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts]
        return {"role": role, "content": content, **more}

    # In the order of the alphabet, because older versions of pyarrow put the names of a dictionary into it.
    call = {"arguments": {"at": "sky"}, "name": "look"}
    messages = [
        said("system", "Be brief."),
        said("user", None, "What is this?", None),
        said("assistant", "A dog."),
        said("user", "And the weather?"),
        said("assistant", "", tool_calls=[call]),
        said("tool", "sunny"),
        said("assistant", "Sunny."),
        said("user", "Thanks"),
    ]
    images = [pool_dataset[0]["image"], pool_dataset[1]["image"]]
    example = Rows(datasets.Dataset.from_list([{"messages": messages, "images": images}]))[0]
    shown = read_conversation(example, mark_images=True)
    assert shown.system == "Be brief."
    assert [(turn.question, turn.answer) for turn in shown.turns] == [
        ("[image 1]\nWhat is this?\n[image 2]", "A dog."),
        ("And the weather?", '{"arguments": {"at": "sky"}, "name": "look"}'),
        ("sunny", "Sunny."),
    ]
    assert read_conversation(example, mark_images=False).turns[0].question == "What is this?"
    options = JudgeOptions()
    prompt = render(judges_prompt(options), shown, shown.turns[-1], **scale_of(options))
    for text in ("Be brief.", *(text for turn in shown.turns for text in (turn.question, turn.answer))):
        assert text in prompt
    assert prompt.endswith("in this form:\nRating: 7")
    assert "Thanks" not in prompt


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ question }", "scoring.judge.prompt_file is not valid Jinja, line 1"),
        ("{{ prompt }} {{ answer }}", "asks for prompt; there are: answer, highest, lowest, question, system, turns"),
        (None, "scoring.judge.prompt_file: there is no file "),
    ],
)
def test_a_prompt_that_cannot_be_used_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "prompt.jinja").write_text(text)
    with pytest.raises(ConfigError, match=message):
        judges_prompt(JudgeOptions(prompt_file=str(tmp_path / "prompt.jinja")))


def test_tokenised_rows_are_refused(text_pool: EncodedDataset, text_path: str) -> None:
    features = [text_pool[row] for row in range(2)]
    table = {name: [row[name].tolist() for row in features] for name in ("input_ids", "labels")}
    rows = Rows(datasets.Dataset.from_dict(table))
    object.__setattr__(rows.config, "tokenizer", text_path)
    with pytest.raises(DataError, match="scorer 'judge' reads text, but the pool's rows are input_ids and labels"):
        build_scorer(asks("http://127.0.0.1:9/v1"), pool=EncodedDataset(rows, text_pool.encoder))


@pytest.mark.parametrize(
    ("reply", "rating"),
    [
        ("Good.\nRating: 7", 7),
        ("rating: 7.5", 7.5),
        ("**Rating: 7**", 7),
        ("**Rating:** 7/10", 7),
        ("> Rating: 7.", 7),
        ("Rating: 4\nNo, better:\nRating: 6", 6),
        ("Rating: 10", 10),
        ("Rating: 11", None),
        ("Rating: 4\nRating: 11", None),
        ("Rating: 0", None),
        ("Rating: -3", None),
        ("Rating (1-10): 7", None),
        ("A rating of 7 would be fair", None),
        ("Rating: 7 out of 100", None),
        ("Rating: 3 or 4", None),
        ("7", None),
        ("", None),
    ],
)
def test_only_a_line_with_a_rating_counts(reply: str, rating: float | None) -> None:
    assert read_rating(reply, JudgeOptions()) == rating


# Lowest, highest, and the levels between them in the default prompt.
SCALES = [(1.0, 10.0, "7", "4"), (1.0, 5.0, "4", "2"), (0.0, 100.0, "67", "33"), (0.0, 1.0, "0.67", "0.33"),
          (-2.0, 2.0, "1", "-1")]  # fmt: skip


@pytest.mark.parametrize(("lowest", "highest", "upper", "lower"), SCALES)
def test_the_default_prompt_and_pattern_go_by_the_scale(lowest, highest, upper: str, lower: str) -> None:
    options = JudgeOptions(lowest=lowest, highest=highest)
    turn = Turn("q", "a")
    prompt = render(judges_prompt(options), Conversation("", [turn]), turn, **scale_of(options))
    assert f"from {lowest:g} to {highest:g}:\n{highest:g} " in prompt
    for level in (upper, lower, f"{lowest:g}"):
        assert f"\n{level} " in prompt
    assert f"gets less than {lower}." in prompt
    assert prompt.endswith(f"\nRating: {upper}")
    assert read_rating(prompt, options) == float(upper)
    for rating in (upper, lower, f"{lowest:g}", f"{highest:g}"):
        assert read_rating(f"Rating: {rating}", options) == float(rating)
        assert read_rating(f"**Rating:** {rating} / {highest:g}.", options) == float(rating)
        assert read_rating(f"Rating: {rating}/{highest:.1f}", options) == float(rating)
        assert read_rating(f"Rating: {rating}/{highest + 1:g}", options) is None
        assert read_rating(f"Rating: {rating}\nRating: {rating}/{highest * 10:g}", options) is None
    assert read_rating(f"Rating: {highest + 1:g}", options) is None
    assert read_rating(f"Rating: {lowest - 1:g}", options) is None


def test_a_prompt_and_a_pattern_of_ones_own_may_leave_the_scale_unnamed(tmp_path: Path) -> None:
    file = tmp_path / "prompt.jinja"
    pattern = r"(\d+) of (\d+)"
    options = JudgeOptions(prompt_file=str(file), pattern=pattern, highest=5.0)
    turn = Turn("q", "a")
    for text, rendered in (("{{ question }}?", "q?"), ("{{ lowest }} to {{ highest }}", "1 to 5")):
        file.write_text(text)
        prompt = judges_prompt(options)
        assert render(prompt, Conversation("", [turn]), turn, **scale_of(options)) == rendered
    assert read_rating("4 of 7", options) == 4
    named = JudgeOptions(pattern=pattern.replace("of (", "of (?P<highest>"), highest=5.0)
    assert [read_rating(reply, named) for reply in ("4 of 5", "4 of 7")] == [4, None]


def test_raters_with_a_scale_of_their_own_are_not_given_the_judges(tmp_path: Path) -> None:
    (tmp_path / "prompt.jinja").write_text("{{ question }} {{ highest }}")
    options = DeitaOptions(quality_prompt_file=str(tmp_path / "prompt.jinja"))
    with pytest.raises(ConfigError, match=r"asks for highest; there are: answer, question, system, turns$"):
        load_prompt("deita", options, "quality_prompt_file")


@pytest.mark.parametrize(("pattern", "reply"), [("score (.*)", "score high"), ("(a)?b", "b"), ("(.*)", "nan")])
def test_a_pattern_that_finds_no_number_gives_no_rating(pattern: str, reply: str) -> None:
    assert read_rating(reply, JudgeOptions(pattern=pattern)) is None


def test_a_model_can_be_pinned_by_its_name(tmp_path: Path) -> None:
    assert (named_model("org/name@abc").model, named_model("org/name@abc").revision) == ("org/name", "abc")
    assert (named_model("org/name").model, named_model("org/name").revision) == ("org/name", None)
    (tmp_path / "run@2").mkdir()
    assert named_model(str(tmp_path / "run@2")).model == str(tmp_path / "run@2")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": None}, "scorer 'judge' needs scoring.judge.model"),
        ({"pattern": "("}, "scoring.judge.pattern is no regular expression"),
        ({"pattern": r"\d"}, "scoring.judge.pattern needs a group around the rating"),
        ({"lowest": 5.0, "highest": 5.0}, r"scoring.judge.highest must be a number > 5.0, got 5.0"),
        ({"max_tokens": 0}, "scoring.judge.max_tokens must be an integer >= 1"),
        ({"concurrency": 0}, "scoring.judge.concurrency must be an integer >= 1"),
        ({"timeout": 0}, "scoring.judge.timeout must be a number > 0"),
        ({"retries": -1}, "scoring.judge.retries must be an integer >= 0"),
        ({"endpoint": "localhost:8000/v1"}, "scoring.judge.endpoint must be a base URL such as"),
        ({"endpoint": "https://me:secret@host/v1"}, "must hold no password and no query"),
        ({"endpoint": "https://host/v1?key=secret"}, "must hold no password and no query"),
        ({"endpoint": "https://host/v1/chat/completions"}, "leave out what follows it"),
        ({"api_key_env": "KEY", "endpoint": None}, "names a key, but there is no scoring.judge.endpoint"),
        ({"api_key_env": "sk-secret"}, "must be the name of an environment variable in capitals"),
        ({"api_key_env": "hf_secret"}, "must be the name of an environment variable in capitals"),
    ],
)
def test_options_are_checked_and_secrets_not_repeated(settings, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        asks("http://127.0.0.1:9/v1", **settings)
    assert "secret" not in str(caught.value)
