"""Tiny real models, loaded once and copied for each test that changes them."""

from __future__ import annotations

import copy
import gc
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before torch and the Hub's client are imported: one thread (two on a busy machine are a hundred times
# slower on models this small), no GPU unless one is named (tolerances are those of float32 on a CPU), and no network.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TQDM_DISABLE"] = "1"

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "recipes" / "handwritten_arithmetic"), str(ROOT / "tests")]

import datasets
import pytest
import task
import torch
import transformers
from accelerate.state import AcceleratorState, GradientState
from float64_case import case  # noqa: F401  a fixture of functional and evidence
from xdist.scheduler import LoadScopeScheduling

from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.functional.update_rules import UPDATE_RULES
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.model import Proxy, build_proxy
from ost_hf.proxy.warmup import warm_up
from ost_hf.scorers.registry import SCORERS
from ost_hf.scoring.second_stages import SECOND_STAGES

torch.set_num_threads(1)

VLM = str(ROOT / "ost_hf" / "checkpoints" / "tiny_qwen3_vl")

# Like Qwen3's: thinking is dropped from every assistant turn before the last user message.
QWEN3_LIKE_TEMPLATE = """\
{%- set last = namespace(user=-1) -%}
{%- for message in messages if message.role == 'user' -%}{%- set last.user = messages.index(message) -%}{%- endfor -%}
{%- for message in messages -%}
{%- set content = message.content -%}
{%- if message.role == 'assistant' and loop.index0 < last.user and '</think>' in content -%}
{%- set content = content.split('</think>')[-1].lstrip() -%}
{%- endif -%}
{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""


# Markers by folder. `slow` is a decorator on what takes more than about two seconds.
FOLDERS = {"distributed": "distributed", "training": "trainer"}


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around pytest-randomly, which mixes them
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Marks tests by folder; distributed tests come first, then files with slow tests, and short files fill the end."""
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        if folder in FOLDERS:
            item.add_marker(FOLDERS[folder])
    yield
    with_slow_tests = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.get_closest_marker("distributed") is None, item.path not in with_slow_tests))


def pytest_collection_finish() -> None:
    """Leaves what was imported out of garbage collections: where memory is freed, each would look at all of it."""
    gc.freeze()


class ByFile(LoadScopeScheduling):
    """Shares tests out over ``pytest -n 2 --dist loadgroup --no-loadscope-reorder``.

    The tests of a file share its fixtures and stay on one worker. Distributed tests start two processes each: all of
    them stay on one worker too, so that they never run beside one another.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return "distributed" if "tests/distributed/" in file else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile | None:
    """Groups by name here: the marks that pytest-xdist 3.8 reads groups from have no effect under pytest 9.2."""
    return ByFile(config, log) if config.getvalue("dist") == "loadgroup" else None


REGISTRIES = (SCORERS, SECOND_STAGES, UPDATE_RULES)


@pytest.fixture(scope="session")
def _our_entries() -> list[dict[str, Any]]:
    """What stands in each registry before any test: all of ours, which are imported once."""
    return [{name: registry.find(name) for name in registry.names()} for registry in REGISTRIES]


@pytest.fixture(autouse=True)
def _registries_as_before(_our_entries: list[dict[str, Any]]) -> Iterator[None]:
    """Forgets what a test registers, and the files that it came from."""
    yield
    for registry, ours in zip(REGISTRIES, _our_entries, strict=True):
        if registry._entries != ours:
            registry._entries.clear()
            registry._entries.update(ours)
            for name in [name for name in sys.modules if name.startswith("ost_hf_import_")]:
                del sys.modules[name]


@pytest.fixture(autouse=True)
def _globals_as_before() -> Iterator[None]:
    """Gives back what libraries keep for the whole process, so that no test depends on those before."""
    environment = dict(os.environ)  # `TrainingArguments(bf16=True)` writes ACCELERATE_MIXED_PRECISION
    known = [logging.root, *logging.root.manager.loggerDict.values()]
    levels = {one: one.level for one in known if isinstance(one, logging.Logger)}  # the command quietens libraries
    yield
    os.environ.clear()
    os.environ.update(environment)
    for logger, level in levels.items():
        if logger.level != level:  # setting one clears the cache of all
            logger.setLevel(level)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def vlm_path() -> str:
    """The tiny Qwen3-VL that ships with the package."""
    return VLM


@pytest.fixture(scope="session")
def text_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untrained Qwen3 of two layers, with a chat template that is not prefix-preserving."""
    folder = tmp_path_factory.mktemp("tiny_qwen3")
    tokenizer = transformers.AutoTokenizer.from_pretrained(VLM)
    tokenizer.chat_template = QWEN3_LIKE_TEMPLATE
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    transformers.Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def processor(vlm_path: str) -> Any:
    """The tiny Qwen3-VL's processor."""
    return transformers.AutoProcessor.from_pretrained(vlm_path)


@pytest.fixture(scope="session")
def pool_dataset() -> datasets.Dataset:
    """Sixty rows of handwritten arithmetic, half of them corrupted."""
    return task.as_dataset(task.pool_rows(60, seed=1))


@pytest.fixture(scope="session")
def anchor_dataset() -> datasets.Dataset:
    """Twelve clean rows."""
    return task.as_dataset(task.clean_rows(12, "anchors", seed=2))


@pytest.fixture(scope="session")
def test_dataset() -> datasets.Dataset:
    """Twenty clean rows on unseen scans."""
    return task.as_dataset(task.clean_rows(20, "test", seed=3))


@pytest.fixture(scope="session")
def pool(pool_dataset: datasets.Dataset, processor: Any) -> EncodedDataset:
    """The pool, encoded for the tiny Qwen3-VL."""
    return EncodedDataset(Rows(pool_dataset), Encoder(processor))


@pytest.fixture(scope="session")
def anchors(anchor_dataset: datasets.Dataset, processor: Any) -> EncodedDataset:
    """The anchors, encoded for the tiny Qwen3-VL."""
    return EncodedDataset(Rows(anchor_dataset), Encoder(processor))


@pytest.fixture(scope="session")
def _warm_proxy(pool: EncodedDataset) -> Proxy:
    config = ProxyConfig(
        model=VLM, dtype="float32", warmup_fraction=0.5, warmup_min_steps=20, warmup_learning_rate=1e-3
    )
    proxy = build_proxy(config)
    warm_up(proxy, pool, exclude=set())
    return proxy


@pytest.fixture
def warm_proxy(_warm_proxy: Proxy) -> Proxy:
    """A warm proxy of the test's own."""
    return copy.deepcopy(_warm_proxy)
