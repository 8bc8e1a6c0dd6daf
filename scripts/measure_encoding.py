"""What encoding a row costs beside its tokenizer: for a long conversation, and for an ordinary row.

``python scripts/measure_encoding.py`` prints the times of the processor's seconds and their ratio.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import datasets
import transformers

from ost_hf.data.config import EncodingConfig
from ost_hf.data.encoding import Encoder
from ost_hf.data.rows import Rows

CHECKPOINT = Path(__file__).parents[1] / "ost_hf" / "checkpoints" / "tiny_qwen3_vl"
CHATML = """\
{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""


def seconds(do: Callable[[], object], repeats: int) -> float:
    """The least processor time of several runs."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        do()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Prints a line for each size of conversation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(CHECKPOINT), help="a tokenizer's name or folder")
    parser.add_argument(
        "--turns", type=int, nargs="+", default=[2, 50, 400], help="turns of user and assistant together"
    )
    parser.add_argument("--words", type=int, default=60, help="words in each turn")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    tokenizer.chat_template = CHATML if options.model == str(CHECKPOINT) else tokenizer.chat_template
    encoder = Encoder(tokenizer, EncodingConfig(max_length=None))
    for turns in options.turns:
        messages = [
            {"role": ("user", "assistant")[turn % 2], "content": " ".join(["three and four"] * (options.words // 3))}
            for turn in range(turns)
        ]
        rows = Rows(datasets.Dataset.from_list([{"messages": messages}]))
        length = encoder.encode(rows, 0).length
        text = encoder.template.render(rows[0].messages)
        alone = seconds(lambda text=text: tokenizer(text, add_special_tokens=False), options.repeats)
        whole = seconds(lambda rows=rows: encoder.encode(rows, 0), options.repeats)
        print(
            f"{turns} turns, {length} tokens: tokenizer {alone * 1e3:.2f} ms, encode {whole * 1e3:.2f} ms, "
            f"ratio {whole / alone:.2f}"
        )


if __name__ == "__main__":
    main()
