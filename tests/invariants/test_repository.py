"""What must hold of the code as a whole."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import ost_hf
from ost_hf.data.encoding import encoder
from ost_hf.functional import loss
from ost_hf.models import ModelConfig

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("ost_hf", "recipes", "scripts") for path in (ROOT / folder).rglob("*.py"))


def test_no_pickle_is_read_or_written() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in SOURCES
        for match in re.finditer(r"\b(pickle|torch\.(save|load)|joblib|dill|np\.load|allow_pickle)\b", path.read_text())
        # The docstrings may say that there is none.
        if "never pickle" not in path.read_text()[max(0, match.start() - 6) : match.end()]
    ]
    assert found == []


def test_remote_code_is_never_on_by_default() -> None:
    assert ModelConfig("x").trust_remote_code is False
    assert not [path for path in SOURCES if "trust_remote_code=True" in path.read_text()]


def test_the_mathematics_masks_the_tokens_that_rows_do() -> None:
    # `functional` and `data` do not know one another, so each names the number.
    assert loss.IGNORE_INDEX == encoder.IGNORE_INDEX


def test_public_names_are_sorted_and_there() -> None:
    names = [name for name in ost_hf.__all__ if name != "__version__"]
    assert set(names) == set(ost_hf._HOMES)
    assert list(ost_hf._HOMES) == sorted(ost_hf._HOMES)
    for name in names:
        home = f"ost_hf.{ost_hf._HOMES[name]}"
        assert getattr(ost_hf, name) is getattr(sys.modules[home], name)


def test_import_is_quick() -> None:
    code = (
        "import sys, ost_hf; heavy = {'torch', 'transformers', 'datasets'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_version_is_that_of_the_changelog_and_of_the_citation() -> None:
    released = re.search(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    cited = re.search(r"^version: (\S+)", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert released is not None and cited is not None
    assert released.group(1) == cited.group(1) == ost_hf.__version__
