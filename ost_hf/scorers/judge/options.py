"""How the judge is asked. Standard library only: ``--help`` reads this."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from ost_hf.errors import ConfigError, require_integer, require_range
from ost_hf.scorers.prompt_files import prompt_digests
from ost_hf.settings import Section, as_mapping, remembers_given

# A line that says nothing else: "Rating (1-10): 7" or "a rating of 7 would be too high" must not become a number.
_NUMBER = r"-?\d+(?:\.\d+)?"
_RATING_LINE = (
    rf"(?im)^[ \t*_#>]*rating[ \t*_]*:[ \t*_]*({_NUMBER})[ \t*_]*(?:/[ \t]*(?P<highest>{_NUMBER}))?[ \t*_.]*$"
)


# These change speed, not what is rated: a run may be resumed with others.
_NOT_IDENTITY = ("api_key_env", "concurrency", "timeout", "retries")


@remembers_given
@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """Scorer `judge`: a language model reads the row and rates it."""

    PROMPTS: ClassVar[dict[str, Path]] = {"prompt_file": Path(__file__).with_name("prompt.jinja")}

    model: str | None = field(
        default=None,
        metadata={
            "help": "the model's name at endpoint; without an endpoint a name on the Hub (name@revision "
            "pins it) or a local folder, loaded in every process"
        },
    )
    endpoint: str | None = field(
        default=None,
        metadata={
            "help": "base URL of an OpenAI-compatible server, such as http://localhost:8000/v1; by default "
            "model is loaded here"
        },
    )
    api_key_env: str | None = field(
        default=None,
        metadata={
            "help": "NAME of the environment variable with the endpoint's key, never the key itself; by default "
            "no key is sent"
        },
    )
    prompt_file: str | None = field(
        default=None,
        metadata={
            "help": "Jinja file that makes the prompt of `question`, `answer` (of the last turn), `turns` and "
            "`system`, and of `lowest` and `highest` of the scale; by default a prompt for a rating on that scale"
        },
    )
    pattern: str = field(
        default=_RATING_LINE,
        metadata={
            "help": "regular expression whose first group is the rating; its last match in the reply counts, "
            "and only if a group named `highest`, where there is one, is highest; by default a line such as "
            "`Rating: 7` or `Rating: 7/10`"
        },
    )
    lowest: float = field(default=1.0, metadata={"help": "lowest rating of the prompt's scale"})
    highest: float = field(default=10.0, metadata={"help": "highest rating; what lies outside is not parsed"})
    max_tokens: int = field(
        default=512, metadata={"help": "longest reply in tokens; room for a few sentences before the rating"}
    )
    concurrency: int = field(
        default=8, metadata={"help": "requests under way at once in each process; more for a large server"}
    )
    timeout: float = field(
        default=120.0, metadata={"help": "seconds to wait for one reply; long enough for a busy server"}
    )
    retries: int = field(
        default=5,
        metadata={
            "help": "further attempts after HTTP 408, 409, 429, 5xx, a timeout or a lost connection; the waits "
            "double from half a second to 8, or are what the server's Retry-After says"
        },
    )

    def __post_init__(self) -> None:
        require_range("scoring.judge.lowest", self.lowest)
        require_range("scoring.judge.highest", self.highest, above=self.lowest)
        require_integer("scoring.judge.max_tokens", self.max_tokens, at_least=1)
        require_integer("scoring.judge.concurrency", self.concurrency, at_least=1)
        require_range("scoring.judge.timeout", self.timeout, above=0)
        require_integer("scoring.judge.retries", self.retries, at_least=0)
        self._check_pattern()
        self._check_endpoint()

    def check(self, config: Any) -> None:
        """Raises ``ConfigError`` if no model is named."""
        if not self.model:
            raise ConfigError(
                "scorer 'judge' needs scoring.judge.model: the model's name at scoring.judge.endpoint, or without an "
                "endpoint a name on the Hub or a local folder"
            )

    def identity(self) -> Section:
        """The fields that decide a rating, and a hash of the prompt's words."""
        kept = {key: value for key, value in as_mapping(self).items() if key not in _NOT_IDENTITY}
        return kept | prompt_digests("judge", self)

    def _check_pattern(self) -> None:
        try:
            groups = re.compile(self.pattern).groups
        except re.error as error:
            raise ConfigError(f"scoring.judge.pattern is no regular expression: {error}") from error
        if groups < 1:
            raise ConfigError(f"scoring.judge.pattern needs a group around the rating, got {self.pattern!r}")

    def _check_endpoint(self) -> None:
        """The messages repeat neither value: a key may have been put there, and the manifest would keep it."""
        name = self.api_key_env
        if name is not None and not re.fullmatch("[A-Z_][A-Z0-9_]*", name):
            raise ConfigError(
                "scoring.judge.api_key_env must be the name of an environment variable in capitals, such as "
                "JUDGE_API_KEY, not the key itself"
            )
        if self.endpoint is None:
            if name is not None:
                raise ConfigError("scoring.judge.api_key_env names a key, but there is no scoring.judge.endpoint")
            return
        url = urlsplit(self.endpoint)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ConfigError("scoring.judge.endpoint must be a base URL such as http://localhost:8000/v1")
        if "@" in url.netloc or url.query or url.fragment:
            raise ConfigError(
                "scoring.judge.endpoint must hold no password and no query: name the key's environment variable in "
                "scoring.judge.api_key_env"
            )
        if url.path.rstrip("/").endswith("/completions"):
            raise ConfigError(
                "scoring.judge.endpoint is the base URL, mostly ending in /v1: leave out what follows it "
                "(/chat/completions)"
            )
