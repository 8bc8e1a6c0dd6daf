"""The judge behind an address: against a server that says what a test wants."""

from __future__ import annotations

import base64
import io
import re
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from chat_server import Answer, Call, ChatServer, asks, judged
from scored import build_scorer

from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.example import RowError
from ost_hf.data.images import image_file, open_image
from ost_hf.data.pictures.files import Places
from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, ModelError, RunDirectoryError
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringRequest
from ost_hf.scoring.runner import score_pool
from ost_hf.tables.score_table import ScoreTable


def number_of(call: Call) -> int:
    """The row that a prompt speaks of."""
    found = re.search(r"^(\d+) \+ ", call.prompt, re.MULTILINE)
    assert found is not None
    return int(found[1])


def scored(run_dir: Path, pool: Rows, model: str, config: ScoringConfig) -> ScoreTable:
    return score_pool(ScoringRequest(run_dir, pool, None, ProxyConfig(model), config))


def test_ratings_become_utilities_and_the_rest_a_status(tmp_path, sums: Rows, text_path: str, monkeypatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")

    def answer(call: Call) -> Answer | str:
        number = number_of(call)
        if number == 10:
            return "I like it. Your key is sk-very-secret."
        if number == 11:
            return Answer("the request sk-very-secret is too long", status=400)
        return f"Rating: 3 would be harsh.\nIt is right.\nRating: {number % 10 + 0.5}"

    with ChatServer(answer) as server:
        config = asks(server, api_key_env="JUDGE_KEY", retries=3, config={"part_size": 5})
        table = scored(tmp_path / "run", sums, text_path, config).read()
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
    assert len(server.calls) == len(sums)
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
    tmp_path: Path, sums: Rows, text_path: str, short_prompt: str
) -> None:
    with ChatServer(lambda call: "Rating: 5") as server:
        settings = {"prompt_file": short_prompt, "config": {"part_size": 4}}
        scored(tmp_path / "run", sums, text_path, asks(server, **settings))
        next((tmp_path / "run" / "scores").glob("part-*")).unlink()
        quick = asks(server, concurrency=2, timeout=9.0, retries=1, **settings)
        assert scored(tmp_path / "run", sums, text_path, quick).read()["utility"][0].as_py() == 5
        assert len(server.calls) == len(sums) + 4
        Path(short_prompt).write_text("Rate it: {{ question }}")
        with pytest.raises(RunDirectoryError, match=r"scoring\.judge\.prompt_file was '\w{20}', now '\w{20}'"):
            scored(tmp_path / "run", sums, text_path, asks(server, **settings))


def test_scores_do_not_depend_on_batch_or_order(text_pool: EncodedDataset) -> None:
    with ChatServer(lambda call: f"Rating: {number_of(call) % 10 + 1}") as server:
        whole = judged(asks(server), text_pool)
        turned = judged(asks(server, concurrency=3), text_pool, list(range(12))[::-1])
        alone = [judged(asks(server), text_pool, [row])[0] for row in range(3)]
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
        scores = judged(asks(server, concurrency=4), text_pool)
    assert {score.utility for score in scores} == {5}
    assert server.most_at_once == 4


def test_a_busy_server_is_asked_again(text_pool: EncodedDataset) -> None:
    def answer(call: Call) -> Answer | str:
        return {1: Answer("slow down", status=429), 2: Answer("overloaded", status=503)}.get(call.attempt, "Rating: 8")

    with ChatServer(answer) as server:
        started = time.perf_counter()
        scores = judged(asks(server, retries=2), text_pool, [0, 1, 2])
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
        (score,) = judged(asks(server), text_pool, [0])
    assert (score.utility, score.status) == (None, "judge_failed")
    assert re.match(detail, score.detail), score.detail


def test_a_reply_that_takes_too_long_has_a_status(text_pool: EncodedDataset) -> None:
    released = threading.Event()

    def answer(call: Call) -> str:
        if number_of(call) == 0:
            released.wait(20)
        return "Rating: 8"

    with ChatServer(answer) as server:
        scores = judged(asks(server, timeout=0.3), text_pool, [0, 1])
        released.set()
    assert [(score.utility, score.status, score.detail) for score in scores] == [
        (None, "judge_failed", "no answer within 0.3 s"),
        (8, "ok", ""),
    ]


def test_a_reply_that_was_cut_off_says_so(text_pool: EncodedDataset) -> None:
    with ChatServer(lambda call: Answer("Let me think\n about", finish_reason="length")) as server:
        (score,) = judged(asks(server), text_pool, [0])
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
        judged(asks(server, api_key_env="JUDGE_KEY", retries=3), text_pool)
    assert "very-secret" not in str(caught.value)


def test_a_server_that_is_gone_is_named_once_and_ends_the_run(text_pool: EncodedDataset, caplog) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    scorer = build_scorer(asks(gone), pool=text_pool)
    batch = [text_pool.encode(row) for row in range(12)]
    for _ in range(2):
        assert {score.status for score in scorer.score(batch)} == {"judge_failed"}
    with pytest.raises(ModelError, match=r"32 rows in a row got no answer .* \(no connection: .*start the run again"):
        scorer.score(batch)
    (said,) = (record.getMessage() for record in caplog.records if record.name.startswith("ost_hf"))
    assert re.fullmatch(rf"no answer from {gone}: .*refused.*; retrying", said)


def test_no_key_of_another_service_is_sent(text_pool: EncodedDataset, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_hub")
    with ChatServer(lambda call: "Rating: 8") as server:
        judged(asks(server), text_pool, [0])
    assert server.headers_of_probes
    sent = str([*server.headers_of_probes, *(call.headers for call in server.calls)])
    assert "sk-of-openai" not in sent
    assert "hf_of_the_hub" not in sent


def test_a_missing_key_is_an_error(text_pool: EncodedDataset, monkeypatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"the environment variable JUDGE_KEY, .*, is not set"):
        judged(asks("http://127.0.0.1:9/v1", api_key_env="JUDGE_KEY"), text_pool)


def test_a_missing_client_is_an_error(text_pool: EncodedDataset, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError, match=r"needs OpenAI's client: pip install 'ost-hf\[judge\]'"):
        judged(asks("http://127.0.0.1:9/v1"), text_pool)


def test_images_arrive_as_data_urls(pool: EncodedDataset) -> None:
    with ChatServer(lambda call: "Rating: 8") as server:
        judged(asks(server), pool, [0, 1])
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
    with pytest.raises(RowError, match=r"no image file at 'nowhere\.png'"):
        image_file("nowhere.png", Places(tmp_path))
