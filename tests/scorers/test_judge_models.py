"""The judge as a model: behind `transformers serve`, and in this process."""

from __future__ import annotations

import json
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers

sys.path.insert(0, str(Path(__file__).parent))

from chat_server import asks, judge, judged
from scored import build_scorer

from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.images import open_image
from ost_hf.errors import ModelError


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
    settings = {"model": plain_path, "prompt_file": short_prompt, "max_tokens": 8}
    there = judged(asks(served, **settings), text_pool, [0, 1, 2])
    here = judged(judge(**settings), text_pool, [0, 1, 2])
    # The model is untrained: what it says is no rating, and is reported as that.
    for one, other in zip(there, here, strict=True):
        assert (one.utility, one.status) == (other.utility, other.status) == (None, "judge_unparsed")
        said = other.detail.removeprefix("no rating in: ")
        assert said
        assert one.detail in (other.detail, f"no rating in (cut off after 8 tokens): {said}")


def test_a_request_that_the_served_model_cannot_take_has_a_status(served: str, text_pool: EncodedDataset) -> None:
    # This server holds one model and answers 400 to every other name.
    (score,) = judged(asks(served, model="another"), text_pool, [0])
    assert score.status == "judge_failed"
    assert score.detail.startswith("HTTP 400 ")


def test_a_local_model_that_sees_rates_rows_with_images(
    pool: EncodedDataset, vlm_path: str, short_prompt: str, processor
) -> None:
    # The tiny Qwen3-VL knows sums and nothing else: its answer serves as the rating.
    Path(short_prompt).write_text("{{ question.replace('[image 1]', '').strip() }}")
    settings = {"pattern": r"answer: (\d+)", "lowest": 0.0, "highest": 99.0}
    config = judge(model=vlm_path, prompt_file=short_prompt, **settings)
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
    (blind,) = judged(judge(model=text_path, prompt_file=short_prompt), pool, [0])
    assert (blind.utility, blind.status) == (None, "judge_failed")
    assert blind.detail == "the row has images, and scoring.judge.model reads text only"
    (long,) = judged(judge(model=text_path), text_pool, [0])
    assert (long.utility, long.status) == (None, "judge_failed")
    assert re.fullmatch(r"a prompt of \d+ tokens and a reply of 512 exceed the model's 512", long.detail)


def test_a_local_model_without_a_chat_template_is_refused(tmp_path: Path, text_path: str, text_pool) -> None:
    transformers.AutoModelForCausalLM.from_pretrained(text_path).save_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(text_path)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has no chat template: name a model that follows instructions"):
        build_scorer(judge(model=str(tmp_path)), pool=text_pool)
