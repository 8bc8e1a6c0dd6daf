"""The judge: against a server that says what a test wants, `transformers serve`, and a model in this process."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import transformers
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from chat_server import Answer, Call, ChatServer

from ost_hf.data.encoding import EncodedDataset, Encoder
from ost_hf.data.images import image_file, open_image
from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, DataError, ModelError, RunDirectoryError
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scorers.base import Score, build_scorer
from ost_hf.scorers.judge import read_rating
from ost_hf.scorers.prompts import load_prompt, named_model, read_conversation, render
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.runner import score_pool

QUESTIONS = [f"{number} + {number}" for number in range(12)]
SHORT = "{{ question }}"


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Twelve rows; what the judge of these tests says can be read off their question."""
    answers = [str(2 * number) for number in range(len(QUESTIONS))]
    return Rows(datasets.Dataset.from_dict({"question": QUESTIONS, "answer": answers}))


@pytest.fixture(scope="module")
def text_pool(rows: Rows, text_path: str) -> EncodedDataset:
    return EncodedDataset(rows, Encoder(transformers.AutoTokenizer.from_pretrained(text_path)), cache=True)


@pytest.fixture
def short_prompt(tmp_path: Path) -> str:
    """The question alone: the tiny models have little room."""
    (tmp_path / "short.jinja").write_text(SHORT)
    return str(tmp_path / "short.jinja")


def options(server: ChatServer | str, **settings: Any) -> ScoringConfig:
    url = server if isinstance(server, str) else server.url
    return ScoringConfig("judge", **{"judge_model": "m", "judge_endpoint": url, "judge_retries": 0, **settings})


def judged(config: ScoringConfig, pool: EncodedDataset, rows: list[int] | None = None) -> list[Score]:
    scorer = build_scorer("judge", config=config, pool=pool)
    return scorer.score([pool.encode(row) for row in (range(len(pool)) if rows is None else rows)])


def number_of(call: Call) -> int:
    """The row that a prompt speaks of."""
    found = re.search(r"^(\d+) \+ ", call.prompt, re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_ratings_become_utilities_and_the_rest_a_status(tmp_path, rows: Rows, text_path: str, monkeypatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")

    def answer(call: Call) -> Answer | str:
        number = number_of(call)
        if number == 10:
            return "I like it. Your key is sk-very-secret."
        if number == 11:
            return Answer("the request sk-very-secret is too long", status=400)
        return f"Rating: 3 would be harsh.\nIt is right.\nRating: {number % 10 + 0.5}"

    with ChatServer(answer) as server:
        config = options(server, judge_api_key_env="JUDGE_KEY", judge_retries=3, part_size=5)
        table = score_pool(tmp_path / "run", rows, None, ProxyConfig(text_path), config).read()
    records = {record["row"]: record for record in table.to_pylist()}
    assert [records[row]["utility"] for row in range(1, 10)] == [number + 0.5 for number in range(1, 10)]
    assert {records[row]["status"] for row in range(1, 10)} == {"ok"}
    # 0.5 is not on the scale; a request that is refused for good is not repeated.
    assert [(records[row]["utility"], records[row]["status"]) for row in (0, 10, 11)] == [
        (None, "judge_unparsed"),
        (None, "judge_unparsed"),
        (None, "judge_failed"),
    ]
    assert records[10]["detail"] == "no rating in: I like it. Your key is [key]."
    assert records[11]["detail"] == 'HTTP 400 {"error": {"message": "the request [key] is too long"}}'
    assert len(server.calls) == len(rows)
    for call in server.calls:
        assert call.path == "/v1/chat/completions"
        assert call.headers["authorization"] == "Bearer sk-very-secret"
        assert {key: call.body[key] for key in ("model", "temperature", "max_tokens")} == {
            "model": "m",
            "temperature": 0,
            "max_tokens": 512,
        }
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if b"very-secret" in path.read_bytes()]


def test_a_run_goes_on_with_another_concurrency_but_not_with_another_prompt(
    tmp_path: Path, rows: Rows, text_path: str, short_prompt: str
) -> None:
    with ChatServer(lambda call: "Rating: 5") as server:
        settings = {"judge_prompt_file": short_prompt, "part_size": 4}
        score_pool(tmp_path / "run", rows, None, ProxyConfig(text_path), options(server, **settings))
        next((tmp_path / "run" / "scores").glob("part-*")).unlink()
        quick = options(server, judge_concurrency=2, judge_timeout=9.0, judge_retries=1, **settings)
        assert score_pool(tmp_path / "run", rows, None, ProxyConfig(text_path), quick).read()["utility"][0].as_py() == 5
        assert len(server.calls) == len(rows) + 4
        Path(short_prompt).write_text("Rate it: {{ question }}")
        with pytest.raises(RunDirectoryError, match=r"scoring\.judge_prompt_file was '\w{20}', now '\w{20}'"):
            score_pool(tmp_path / "run", rows, None, ProxyConfig(text_path), options(server, **settings))


def test_scores_do_not_depend_on_batch_or_order(text_pool: EncodedDataset) -> None:
    with ChatServer(lambda call: f"Rating: {number_of(call) % 10 + 1}") as server:
        whole = judged(options(server), text_pool)
        turned = judged(options(server, judge_concurrency=3), text_pool, list(range(12))[::-1])
        alone = [judged(options(server), text_pool, [row])[0] for row in range(3)]
    assert [score.utility for score in whole] == [number % 10 + 1 for number in range(12)]
    assert whole == turned[::-1]
    assert whole[:3] == alone


def test_requests_of_a_batch_overlap(text_pool: EncodedDataset) -> None:
    # Nobody gets an answer before four requests are there.
    together = threading.Barrier(4, timeout=20)

    def answer(call: Call) -> str:
        together.wait()
        return "Rating: 5"

    with ChatServer(answer) as server:
        scores = judged(options(server, judge_concurrency=4), text_pool)
    assert {score.utility for score in scores} == {5}
    assert server.most_at_once == 4


def test_a_busy_server_is_asked_again(text_pool: EncodedDataset) -> None:
    def answer(call: Call) -> Answer | str:
        return {1: Answer("slow down", status=429), 2: Answer("overloaded", status=503)}.get(call.attempt, "Rating: 8")

    with ChatServer(answer) as server:
        started = time.perf_counter()
        scores = judged(options(server, judge_retries=2), text_pool, [0, 1, 2])
        waited = time.perf_counter() - started
    assert [score.utility for score in scores] == [8, 8, 8]
    assert len(server.calls) == 9
    # Half a second and one second, each shortened by a quarter at most.
    assert waited > 0.75 * 1.5


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (Answer("overloaded", status=503), r'HTTP 503 {"error": {"message": "overloaded"}}'),
        (Answer("slow down", status=429), "HTTP 429 .*slow down"),
        (Answer(body={"id": "1", "object": "chat.completion", "choices": []}), "an answer without choices"),
        (Answer(body=b"<html>not JSON"), "an answer that cannot be read: "),
        (Answer(body=b"<html>", headers={"Content-Type": "text/html"}), "an answer without choices"),
    ],
)
def test_a_request_that_fails_has_a_status_and_no_utility(text_pool: EncodedDataset, answer, detail: str) -> None:
    with ChatServer(lambda call: answer) as server:
        (score,) = judged(options(server), text_pool, [0])
    assert (score.utility, score.status) == (None, "judge_failed")
    assert re.match(detail, score.detail), score.detail


def test_a_reply_that_takes_too_long_has_a_status(text_pool: EncodedDataset) -> None:
    released = threading.Event()

    def answer(call: Call) -> str:
        if number_of(call) == 0:
            released.wait(20)
        return "Rating: 8"

    with ChatServer(answer) as server:
        scores = judged(options(server, judge_timeout=0.3), text_pool, [0, 1])
        released.set()
    assert [(score.utility, score.status, score.detail) for score in scores] == [
        (None, "judge_failed", "no answer within 0.3 s"),
        (8, "ok", ""),
    ]


def test_a_reply_that_was_cut_off_says_so(text_pool: EncodedDataset) -> None:
    with ChatServer(lambda call: Answer("Let me think\n about", finish_reason="length")) as server:
        (score,) = judged(options(server), text_pool, [0])
    assert score.status == "judge_unparsed"
    assert score.detail == "no rating in (cut off after 512 tokens): Let me think about"


@pytest.mark.parametrize(("status", "said"), [(401, "wrong key"), (404, "no such model")])
def test_what_every_row_would_meet_ends_the_run(text_pool: EncodedDataset, status, said, monkeypatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")
    message = rf"refuses model 'm': HTTP {status} .*{said} \[key\]"
    with (
        ChatServer(lambda call: Answer(f"{said} sk-very-secret", status=status)) as server,
        pytest.raises(ModelError, match=message) as caught,
    ):
        judged(options(server, judge_api_key_env="JUDGE_KEY", judge_retries=3), text_pool)
    assert "very-secret" not in str(caught.value)


def test_a_server_that_is_gone_ends_the_run(text_pool: EncodedDataset) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    scorer = build_scorer("judge", config=options(gone), pool=text_pool)
    batch = [text_pool.encode(row) for row in range(12)]
    for _ in range(2):
        assert {score.status for score in scorer.score(batch)} == {"judge_failed"}
    with pytest.raises(ModelError, match=r"32 rows in a row got no answer .* \(no connection: .*start the run again"):
        scorer.score(batch)


def test_no_key_of_another_service_is_sent(text_pool: EncodedDataset, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_hub")
    with ChatServer(lambda call: "Rating: 8") as server:
        judged(options(server), text_pool, [0])
    sent = str(server.calls[0].headers)
    assert "sk-of-openai" not in sent
    assert "hf_of_the_hub" not in sent


def test_a_missing_key_is_an_error(text_pool: EncodedDataset, monkeypatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"the environment variable JUDGE_KEY, .*, is not set"):
        judged(options("http://127.0.0.1:9/v1", judge_api_key_env="JUDGE_KEY"), text_pool)


def test_a_missing_client_is_an_error(text_pool: EncodedDataset, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError, match=r"needs OpenAI's client: pip install 'ost-hf\[judge\]'"):
        judged(options("http://127.0.0.1:9/v1"), text_pool)


def test_images_arrive_as_data_urls(pool: EncodedDataset) -> None:
    with ChatServer(lambda call: "Rating: 8") as server:
        judged(options(server), pool, [0, 1])
    assert len(server.calls) == 2
    by_prompt = {call.prompt: call for call in server.calls}
    for row in (0, 1):
        example = pool.rows[row]
        call = next(call for prompt, call in by_prompt.items() if example.messages[-1]["content"][0]["text"] in prompt)
        *images, text = call.content
        assert "[image 1]" in text["text"]
        assert len(images) == len(example.images) == 1
        assert images[0]["type"] == "image_url"
        head, _, data = images[0]["image_url"]["url"].partition(",")
        assert head == "data:image/png;base64"
        arrived = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
        assert arrived.tobytes() == open_image(example.images[0], None).tobytes()


def test_images_are_sent_as_they_are_stored_where_servers_read_that(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 8), (200, 30, 30))
    for kind, media_type in (("JPEG", "image/jpeg"), ("BMP", None)):
        buffer = io.BytesIO()
        picture.save(buffer, format=kind)
        data, sent_as = image_file({"bytes": buffer.getvalue(), "path": None}, None)
        assert (data == buffer.getvalue(), sent_as) == ((True, media_type) if media_type else (False, "image/png"))
    data, sent_as = image_file(picture, None)
    assert sent_as == "image/png"
    assert Image.open(io.BytesIO(data)).tobytes() == picture.tobytes()
    with pytest.raises(ValueError, match="no image file at"):
        image_file("nowhere.png", tmp_path)


@pytest.fixture(scope="module")
def plain_path(text_path: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny text model without the processor that its tokenizer was made for: the server would look for that."""
    folder = tmp_path_factory.mktemp("plain") / "tiny"
    shutil.copytree(text_path, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["processor_class"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return str(folder)


@pytest.fixture(scope="module")
def served(plain_path: str) -> Iterator[str]:
    """The URL of `transformers serve` with the tiny text model."""
    from transformers.cli.serve import Serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Serve(force_model=plain_path, host="127.0.0.1", port=port, device="cpu", non_blocking=True)
    deadline = time.monotonic() + 30
    while not server.server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}/v1"
    server.kill_server()


def test_a_served_model_and_the_same_one_here_say_the_same(
    served: str, plain_path: str, text_pool: EncodedDataset, short_prompt: str
) -> None:
    settings = {"judge_model": plain_path, "judge_prompt_file": short_prompt, "judge_max_tokens": 8}
    there = judged(options(served, **settings), text_pool, [0, 1, 2])
    here = judged(ScoringConfig("judge", **settings), text_pool, [0, 1, 2])
    # The model is untrained: what it says is no rating, and is reported as that.
    for one, other in zip(there, here, strict=True):
        assert (one.utility, one.status) == (other.utility, other.status) == (None, "judge_unparsed")
        said = other.detail.removeprefix("no rating in: ")
        assert said
        assert one.detail in (other.detail, f"no rating in (cut off after 8 tokens): {said}")


def test_a_request_that_the_served_model_cannot_take_has_a_status(served: str, text_pool: EncodedDataset) -> None:
    # This server holds one model and answers 400 to every other name.
    (score,) = judged(options(served, judge_model="another"), text_pool, [0])
    assert score.status == "judge_failed"
    assert score.detail.startswith("HTTP 400 ")


def test_a_local_model_that_sees_rates_rows_with_images(
    pool: EncodedDataset, vlm_path: str, short_prompt: str, processor
) -> None:
    # The tiny Qwen3-VL knows sums and nothing else: its answer serves as the rating.
    Path(short_prompt).write_text("{{ question.replace('[image 1]', '').strip() }}")
    settings = {"judge_pattern": r"answer: (\d+)", "judge_lowest": 0.0, "judge_highest": 99.0}
    config = ScoringConfig("judge", judge_model=vlm_path, judge_prompt_file=short_prompt, **settings)
    batch = [0, 1, 2, 3]
    scores = judged(config, pool, batch)
    model = transformers.AutoModelForImageTextToText.from_pretrained(vlm_path)
    for row, score in zip(batch, scores, strict=True):
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": _seen(pool, row)}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        output = model.generate(**inputs, max_new_tokens=64, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        expected = re.search(r"answer: (\d+)", processor.tokenizer.decode(output))
        assert expected is not None
        assert (score.utility, score.status) == (float(expected[1]), "ok")


def _seen(pool: EncodedDataset, row: int) -> list[dict[str, Any]]:
    example = pool.rows[row]
    (text,) = [part["text"] for part in example.messages[0]["content"] if part["type"] == "text"]
    images = [{"type": "image", "image": open_image(image, None)} for image in example.images]
    return [*images, {"type": "text", "text": text}]


def test_what_a_local_model_cannot_read_has_a_status(pool: EncodedDataset, text_pool, text_path: str, short_prompt):
    (blind,) = judged(ScoringConfig("judge", judge_model=text_path, judge_prompt_file=short_prompt), pool, [0])
    assert (blind.utility, blind.status) == (None, "judge_failed")
    assert blind.detail == "the row has images, and scoring.judge_model reads text only"
    (long,) = judged(ScoringConfig("judge", judge_model=text_path), text_pool, [0])
    assert (long.utility, long.status) == (None, "judge_failed")
    assert re.fullmatch(r"a prompt of \d+ tokens and a reply of 512 exceed the model's 512", long.detail)


def test_a_local_model_without_a_chat_template_is_refused(tmp_path: Path, text_path: str, text_pool) -> None:
    transformers.AutoModelForCausalLM.from_pretrained(text_path).save_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(text_path)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has no chat template: name a model that follows instructions"):
        build_scorer("judge", config=ScoringConfig("judge", judge_model=str(tmp_path)), pool=text_pool)


def test_the_prompt_holds_the_whole_conversation(pool_dataset: datasets.Dataset) -> None:
    def said(role: str, *parts: Any, **more: Any) -> dict[str, Any]:
        content = [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts]
        return {"role": role, "content": content, **more}

    call = {"name": "look", "arguments": {"at": "sky"}}
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
        ("And the weather?", '{"name": "look", "arguments": {"at": "sky"}}'),
        ("sunny", "Sunny."),
    ]
    assert read_conversation(example, mark_images=False).turns[0].question == "What is this?"
    prompt = render(load_prompt(ScoringConfig(), "judge_prompt_file"), shown, shown.turns[-1])
    for text in ("Be brief.", *(text for turn in shown.turns for text in (turn.question, turn.answer))):
        assert text in prompt
    assert prompt.endswith("in this form:\nRating: 7")
    assert "Thanks" not in prompt


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ question }", "scoring.judge_prompt_file is not valid Jinja, line 1"),
        ("{{ prompt }} {{ answer }}", "asks for prompt; there are: answer, question, system, turns"),
        (None, "scoring.judge_prompt_file: there is no file "),
    ],
)
def test_a_prompt_that_cannot_be_used_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "prompt.jinja").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_prompt(ScoringConfig(judge_prompt_file=str(tmp_path / "prompt.jinja")), "judge_prompt_file")


def test_tokenised_rows_are_refused(text_pool: EncodedDataset, text_path: str) -> None:
    features = [text_pool[row] for row in range(2)]
    table = {name: [row[name].tolist() for row in features] for name in ("input_ids", "labels")}
    rows = Rows(datasets.Dataset.from_dict(table))
    object.__setattr__(rows.config, "tokenizer", text_path)
    with pytest.raises(DataError, match="scorer 'judge' reads text, but the pool's rows are input_ids and labels"):
        build_scorer("judge", config=options("http://127.0.0.1:9/v1"), pool=EncodedDataset(rows, text_pool.encoder))


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
    assert read_rating(reply, ScoringConfig()) == rating


@pytest.mark.parametrize(("pattern", "reply"), [("score (.*)", "score high"), ("(a)?b", "b"), ("(.*)", "nan")])
def test_a_pattern_that_finds_no_number_gives_no_rating(pattern: str, reply: str) -> None:
    assert read_rating(reply, ScoringConfig(judge_pattern=pattern)) is None


def test_a_model_can_be_pinned_by_its_name(tmp_path: Path) -> None:
    assert (named_model("org/name@abc").model, named_model("org/name@abc").revision) == ("org/name", "abc")
    assert (named_model("org/name").model, named_model("org/name").revision) == ("org/name", None)
    (tmp_path / "run@2").mkdir()
    assert named_model(str(tmp_path / "run@2")).model == str(tmp_path / "run@2")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"judge_model": None}, "scorer 'judge' needs scoring.judge_model"),
        ({"judge_pattern": "("}, "scoring.judge_pattern is no regular expression"),
        ({"judge_pattern": r"\d"}, "scoring.judge_pattern needs a group around the rating"),
        ({"judge_lowest": 5.0, "judge_highest": 5.0}, r"scoring.judge_highest must be a number > 5.0, got 5.0"),
        ({"judge_max_tokens": 0}, "scoring.judge_max_tokens must be a number >= 1"),
        ({"judge_concurrency": 0}, "scoring.judge_concurrency must be a number >= 1"),
        ({"judge_timeout": 0}, "scoring.judge_timeout must be a number > 0"),
        ({"judge_retries": -1}, "scoring.judge_retries must be a number >= 0"),
        ({"judge_endpoint": "localhost:8000/v1"}, "scoring.judge_endpoint must be a base URL such as"),
        ({"judge_endpoint": "https://me:secret@host/v1"}, "must hold no password and no query"),
        ({"judge_endpoint": "https://host/v1?key=secret"}, "must hold no password and no query"),
        ({"judge_endpoint": "https://host/v1/chat/completions"}, "leave out what follows it"),
        ({"judge_api_key_env": "KEY", "judge_endpoint": None}, "names a key, but there is no scoring.judge_endpoint"),
        ({"judge_api_key_env": "sk-secret"}, "must be the name of an environment variable in capitals"),
        ({"judge_api_key_env": "hf_secret"}, "must be the name of an environment variable in capitals"),
    ],
)
def test_options_are_checked_and_secrets_not_repeated(settings, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        options("http://127.0.0.1:9/v1", **settings)
    assert "secret" not in str(caught.value)
