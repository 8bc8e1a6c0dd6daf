"""Models and their tokenizers or processors by name: the same for proxy, target and evaluation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ost_hf.errors import ConfigError, ModelError, require_choice
from ost_hf.files import feed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ModelConfig:
    """A causal language model or an image-text-to-text model, on the Hub or in a folder."""

    # What errors call it.
    setting: ClassVar[str] = "model"

    model: str = field(metadata={"common": True, "help": "name on the Hub or local folder"})
    revision: str | None = field(default=None, metadata={"help": "branch, tag or commit on the Hub"})
    dtype: str = field(
        default="auto", metadata={"help": "weights: `float32`, `bfloat16`, or `auto` (bfloat16 on an accelerator)"}
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "`sdpa`, `eager`, `flash_attention_2`, ...; by default the model's own choice"}
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "run code that comes with the model"})

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("a model is needed: a name on the Hub or a local folder")
        require_choice("dtype", self.dtype, ["auto", "float32", "bfloat16"])


@dataclass(frozen=True)
class TargetConfig(ModelConfig):
    """The model to fine-tune, all of it."""

    setting: ClassVar[str] = "target.model"

    dtype: str = field(
        default="float32",
        metadata={
            "common": True,
            "short": "float32, bfloat16 (for DeepSpeed) or auto",
            "help": "weights while training: `float32` (with training.bf16, mixed precision), or `bfloat16`, which "
            "loses nothing under DeepSpeed (it keeps its own float32 weights); `auto`: bfloat16 on an accelerator",
        },
    )


def load_model(config: ModelConfig) -> Any:
    """Loads the model with the class its configuration calls for.

    Returns:
        An ``AutoModelForImageTextToText`` model where there is one for the configuration, else an
        ``AutoModelForCausalLM`` model.

    Raises:
        ModelError: If there is no such model, or neither class knows it.
    """
    model = find_model_class(config).from_pretrained(
        config.model,
        revision=config.revision,
        dtype=weights_dtype(config),
        attn_implementation=config.attn_implementation,
        trust_remote_code=config.trust_remote_code,
    )
    _keep_parameter_names(model)
    return model


def find_model_class(config: ModelConfig) -> Any:
    """The class that loads the model; its configuration alone is read.

    Raises:
        ModelError: If there is no such model, or neither class knows it.
    """
    import transformers

    model_config = _model_config(config)
    model_class = (
        transformers.AutoModelForImageTextToText if reads_images(config) else transformers.AutoModelForCausalLM
    )
    if not _loads(model_class, model_config, config):
        raise ModelError(
            f"{config.model} is a {type(model_config).__name__}: neither a causal language model nor an "
            "image-text-to-text model"
        )
    return model_class


def load_processing_class(config: ModelConfig) -> Any:
    """The model's processor if it reads images, else its tokenizer."""
    import transformers

    auto = transformers.AutoProcessor if reads_images(config) else transformers.AutoTokenizer
    return auto.from_pretrained(config.model, revision=config.revision, trust_remote_code=config.trust_remote_code)


def reads_images(config: ModelConfig) -> bool:
    """Whether the model is an image-text-to-text model."""
    import transformers

    return _loads(transformers.AutoModelForImageTextToText, _model_config(config), config)


def _loads(auto_class: Any, model_config: Any, config: ModelConfig) -> bool:
    """Whether an auto class has a class for a configuration, of the library or of code that comes with the model."""
    remote = (getattr(model_config, "auto_map", None) or {}) if config.trust_remote_code else {}
    return type(model_config) in auto_class._model_mapping or auto_class.__name__ in remote


def _model_config(config: ModelConfig) -> Any:
    import transformers

    name = f"{config.setting} {config.model!r}"
    if Path(config.model).is_dir() and not (Path(config.model) / "config.json").exists():
        raise ModelError(f"{name}: the folder has no config.json; name one that save_pretrained has written")
    try:
        return transformers.AutoConfig.from_pretrained(
            config.model, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
    except OSError as error:
        raise ModelError(f"{name}: {_why_not_found(error)}") from error
    except ValueError as error:  # an unknown architecture, or code of the model's own that nobody allowed to be run
        raise ModelError(
            f"{name}: {str(error).splitlines()[0]} (trust_remote_code is {config.trust_remote_code})"
        ) from error


def _why_not_found(error: OSError) -> str:
    """In one line where that says it, else in the Hub's own words: a gated model, another revision, a full disk."""
    from huggingface_hub import errors

    missing = (errors.RepositoryNotFoundError, errors.LocalEntryNotFoundError, errors.HFValidationError)
    if isinstance(error.__cause__, missing) and not isinstance(error.__cause__, errors.GatedRepoError):
        return (
            "not a local folder, and the Hub has none of that name (or cannot be reached); check the name, and log in "
            "if it is private"
        )
    return str(error)


def weights_dtype(config: ModelConfig) -> torch.dtype:
    """What ``config.dtype`` means on this machine."""
    import torch

    from ost_hf.parallel import on_accelerator

    if config.dtype == "auto":
        return torch.bfloat16 if on_accelerator() else torch.float32
    dtype: torch.dtype = getattr(torch, config.dtype)
    return dtype


def describe_weights(config: ModelConfig) -> dict[str, str | None]:
    """What tells a model's weights from others that go by the same name.

    Returns:
        ``dtype``, as ``auto`` is meant on this machine; ``hash`` of a local folder's files, or ``commit`` on the Hub.

    Raises:
        ModelError: If there is no such model.
    """
    folder = Path(config.model).expanduser()
    found = {"dtype": str(weights_dtype(config)).removeprefix("torch.")}
    if folder.is_dir():
        return {**found, "hash": hash_of_weights(folder)}
    return {**found, "commit": getattr(_model_config(config), "_commit_hash", None)}


def hash_of_weights(folder: Path) -> str:
    """A hash of what is in a folder's files of weights."""
    files = sorted(item for item in folder.rglob("*") if item.suffix in (".safetensors", ".bin"))
    return _hash_of(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache
def _hash_of(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Sizes and times are there for the cache: a model may be made anew in its folder."""
    digest = hashlib.blake2b(digest_size=8)
    for file, _, _ in files:
        feed(digest, file)
    return digest.hexdigest()


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, on this process's device."""
    from safetensors.torch import load_file

    from ost_hf.parallel import state

    device = state().device
    # To Accelerate the CPU of one of several processes is `cpu:0`, which safetensors does not know.
    return load_file(path, device="cpu" if device.type == "cpu" else str(device))


def _keep_parameter_names(model: Any) -> None:
    """Lets a model loaded under ZeRO-3 be saved under the names that its class gives.

    That path of transformers notes every renaming it knows of, needed by the checkpoint or not; saving would
    undo them all, and other software would not find ``model.language_model.model...``. Without the note,
    saving does what it does for a model that was made in memory.
    """
    from transformers.integrations import is_deepspeed_zero3_enabled

    if is_deepspeed_zero3_enabled() and hasattr(model, "_weight_conversions"):
        del model._weight_conversions
