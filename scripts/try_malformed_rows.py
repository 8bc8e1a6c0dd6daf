"""Malformed rows and files by seed, through scoring and a step of training: nothing may end a run, and nothing may lie.

    python scripts/try_malformed_rows.py --rows 3000 --seed 0

Harms that are looked for: an exception that is no sentence for the user; a row that is missing from the score table;
a good row without a score; a row that cannot be meant, scored as if it could; an answer that changed on its way in; a
token that a user typed and that became control; a message with bytes, a memory address, a local path or more than 500
characters; a pool that takes more than a minute, or more than a gibibyte. Exits with 1 if there is any.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import datasets
import torch
import transformers
from malformed.harms import of_answers, of_control, of_statuses, of_texts
from malformed.pools import GOOD, Pool, pools

import ost_hf
from ost_hf.data.config import DatasetConfig, EncodingConfig
from ost_hf.data.encoding import Encoder
from ost_hf.data.rows import Rows
from ost_hf.errors import OSTError

SECONDS, MEBIBYTES = 60, 1024
MAX_LENGTH = 512


class Trial:
    """A tiny model, and what becomes of pools that it scores and learns from."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.model = Path(ost_hf.__file__).parent / "checkpoints" / "tiny_qwen3_vl"
        self.processor = transformers.AutoProcessor.from_pretrained(self.model)
        self.encoding = EncodingConfig(max_length=MAX_LENGTH)
        self.encoder = Encoder(self.processor, self.encoding)
        tokenizer = self.processor.tokenizer
        self.control = {str(token): number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.closing = tokenizer.eos_token
        self.anchors = datasets.Dataset.from_list(
            [{"question": f"what is {n} + 1?", "answer": f"it is {n + 1}"} for n in range(4)]
        )

    def harms(self, pool: Pool, number: int) -> list[str]:
        """What went wrong with a pool, in words."""
        with heard() as messages, measured() as cost:
            try:
                found = self._run(pool, self.folder / "runs" / str(number))
            except OSTError as error:
                messages.append(str(error))
                found = [] if pool.may_be_refused else [f"the pool was refused: {error}"]
            except Exception as error:
                found = [f"{type(error).__name__}: {str(error)[:200]}"]
        return found + of_texts(messages, str(Path.home())) + cost

    def _run(self, pool: Pool, run_dir: Path) -> list[str]:
        rows = (
            Rows(pool.source, DatasetConfig(path="in memory", **pool.fields))
            if isinstance(pool.source, datasets.Dataset)
            else Rows.load(DatasetConfig(path=pool.source, **pool.fields))
        )
        # Anchors of another layout are fine; copies among the rows are meant.
        table = ost_hf.score(
            rows, self.anchors, proxy={"model": str(self.model), "warmup_fraction": 0}, output_dir=run_dir,
            encoding=self.encoding,
            scoring={"scorer": "perplexity"}, duplicates={"within_pool": "report", "anchors": None},
        )  # fmt: skip
        scores = table.read()
        statuses = scores["status"].to_pylist()
        harms = of_statuses(pool, statuses) if pool.cells else []
        harms += of_texts([text or "" for text in scores["detail"].to_pylist()], str(self.folder))
        encoded = [self.encoder.encode(rows, row) for row in range(len(rows))]
        ids = [None if each.features is None else each.features["input_ids"].tolist() for each in encoded]
        answers = [None if each.features is None else self._answer(each.features) for each in encoded]
        harms += of_answers(pool, answers) + of_control(pool, ids, self.control)
        if any(status == "ok" for status in statuses):
            self._train(rows, table, run_dir)
        return harms

    def _answer(self, features: dict[str, torch.Tensor]) -> str:
        labels = features["labels"]
        text = self.processor.tokenizer.decode(labels[labels >= 0])
        return text.removesuffix("\n").removesuffix(self.closing)

    def _train(self, rows: Rows, table: Any, run_dir: Path) -> None:
        """A step on what was kept."""
        selection = ost_hf.select(table, keep_ratio=1.0)
        args = ost_hf.OSTConfig(
            output_dir=str(run_dir / "target"), max_steps=1, per_device_train_batch_size=4, report_to=[],
            save_strategy="no", use_cpu=True, disable_tqdm=True, remove_unused_columns=False, encoding=self.encoding,
        )  # fmt: skip
        model = transformers.AutoModelForImageTextToText.from_pretrained(self.model)
        trainer = ost_hf.OSTTrainer(
            model=model, args=args, train_dataset=rows, processing_class=self.processor, selection=selection
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()


@contextmanager
def heard() -> Iterator[list[str]]:
    """What is logged meanwhile."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("ost_hf")
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


@contextmanager
def measured() -> Iterator[list[str]]:
    """Harms of time and memory; known once the block is done."""
    harms: list[str] = []
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield harms
    seconds = time.perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    if seconds > SECONDS:
        harms.append(f"took {seconds:.0f} s")
    if grown > MEBIBYTES:
        harms.append(f"took {grown:,} MiB")


def main() -> None:
    """Makes pools until there are enough rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3000, help="at least so many malformed rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="pools whose name holds this")
    args = parser.parse_args()
    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    sys.exit(1 if try_rows(args.rows, args.seed, args.only) else 0)


def try_rows(rows: int, seed: int, only: str = "") -> int:
    """The number of harms; each kind is printed once, with how often it was met."""
    with tempfile.TemporaryDirectory() as name:
        trial, found, tried = Trial(Path(name)), Counter[str](), 0
        for number, pool in enumerate(pools(seed, rows, Path(name), str(trial.model))):
            if only not in pool.name:
                continue
            tried += sum(cell != GOOD for cell in pool.cells) or 1
            for harm in trial.harms(pool, number):
                if not found[f"{pool.name.split(' ', 1)[1]}: {harm}"]:
                    print(f"{pool.name}: {harm}", flush=True)
                found[f"{pool.name.split(' ', 1)[1]}: {harm}"] += 1
    print(f"{tried:,} malformed rows and files: {found.total()} harms of {len(found)} kinds")
    return found.total()


if __name__ == "__main__":
    main()
