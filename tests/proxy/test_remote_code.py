"""A model whose classes come with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers

from ost_hf.errors import ModelError
from ost_hf.models import ModelConfig, find_model_class, load_model

CONFIGURATION = """
from transformers import Qwen3Config

class OwnConfig(Qwen3Config):
    model_type = "own_architecture"
"""
MODELING = """
from transformers import Qwen3ForCausalLM

from .configuration_own import OwnConfig

class OwnForCausalLM(Qwen3ForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def folder(tmp_path: Path, text_path: str) -> str:
    """The tiny Qwen3 under another name, which the library does not know."""
    transformers.AutoModelForCausalLM.from_pretrained(text_path).save_pretrained(tmp_path / "own")
    config = json.loads((tmp_path / "own" / "config.json").read_text())
    config |= {"model_type": "own_architecture", "architectures": ["OwnForCausalLM"]}
    config["auto_map"] = {
        "AutoConfig": "configuration_own.OwnConfig",
        "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
    }
    (tmp_path / "own" / "config.json").write_text(json.dumps(config))
    (tmp_path / "own" / "configuration_own.py").write_text(CONFIGURATION)
    (tmp_path / "own" / "modeling_own.py").write_text(MODELING)
    return str(tmp_path / "own")


def test_it_is_loaded_where_that_is_allowed_and_refused_elsewhere(folder: str) -> None:
    with pytest.raises(ModelError, match=r"own.*\(trust_remote_code is False\)"):
        find_model_class(ModelConfig(folder))
    config = ModelConfig(folder, trust_remote_code=True)
    assert find_model_class(config) is transformers.AutoModelForCausalLM
    assert type(load_model(config)).__name__ == "OwnForCausalLM"
