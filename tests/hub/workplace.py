"""A scored and selected pool in a folder, and processes that speak to a stand-in of the Hub."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import datasets
import yaml
from forks import Forks
from hub_stand_in import TOKEN, HubStandIn

from ost_hf.data.config import DatasetConfig
from ost_hf.data.rows import Rows


class Workplace:
    """A scored and selected pool in a folder, and processes that speak to a stand-in of the Hub."""

    def __init__(self, folder: Path, hub: HubStandIn):
        self.folder, self.hub = folder, hub
        self.pool_path, self.run_dir = folder / "pool.parquet", folder / "run"
        self.first_push = ""
        self._forks: Forks | None = None

    @property
    def pool(self) -> Rows:
        """The pool as it is stored."""
        return load_rows(self.pool_path)

    @property
    def environment(self) -> dict[str, str]:
        """What points the Hub's clients at the stand-in."""
        return {
            **os.environ,
            "HF_ENDPOINT": self.hub.url,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(self.folder / "hf_home"),
            "HF_DATASETS_CACHE": str(self.folder / "hf_home" / "datasets"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs Python with the Hub's clients pointed at the stand-in."""
        if self._forks is None:
            self._forks = Forks(self.environment, self.folder)
        return self._forks.run(list(arguments))

    def close(self) -> None:
        """Ends the process that others were forked from."""
        if self._forks is not None:
            self._forks.close()

    def push(self, *flags: str) -> subprocess.CompletedProcess[str]:
        """Runs ``ost-hf push``."""
        done = self.python("-m", "ost_hf.cli.main", "push", "--run_dir", str(self.run_dir), *flags)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def load_back(self, repo_id: str, revision: str = "main") -> tuple[datasets.DatasetDict, datasets.DatasetDict]:
        """The default configuration and the scores, downloaded by another process."""
        out = self.downloaded("load_client.py", repo_id, revision)
        return datasets.load_from_disk(out / "default"), datasets.load_from_disk(out / "scores")

    def downloaded(self, client: str, repo_id: str, revision: str = "main") -> Path:
        """The folder into which another process, one of the clients here, has put what it loaded."""
        out = self.folder / "loaded" / str(len(self.hub.requests))
        done = self.python(str(Path(__file__).with_name(client)), repo_id, revision, str(out))
        assert done.returncode == 0, done.stderr
        return out

    def card(self, repo_id: str, revision: str = "main") -> tuple[dict[str, Any], str]:
        """The YAML head and the text of the repository's README."""
        _, head, text = self.hub.files(repo_id, revision)["README.md"].decode().split("---\n", 2)
        return yaml.safe_load(head), text


def load_rows(path: Path) -> Rows:
    dataset = datasets.Dataset.from_parquet(str(path), cache_dir=str(path.parent / "cache"))
    return Rows(dataset, DatasetConfig(path=str(path)))
