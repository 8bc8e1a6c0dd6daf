"""Where a curated dataset goes."""

from __future__ import annotations

from dataclasses import dataclass, field

from ost_hf.errors import ConfigError


@dataclass(frozen=True)
class HubConfig:
    """A dataset repository on the Hub."""

    repo_id: str = field(
        metadata={
            "common": True,
            "short": "dataset repository, made if it is not there",
            "help": "dataset repository, such as `me/my-pool-ost`; made if it does not exist",
        }
    )
    private: bool = field(default=True, metadata={"common": True, "help": "whether a new repository is private"})
    license: str | None = field(
        default=None, metadata={"common": True, "help": "the pool's licence, as the Hub names it"}
    )
    revision: str | None = field(default=None, metadata={"help": "branch to push to; by default the main one"})

    def __post_init__(self) -> None:
        if self.repo_id.count("/") > 1 or not self.repo_id.strip("/"):
            raise ConfigError(f"hub.repo_id must be name or owner/name, got {self.repo_id!r}")
