"""How the judge is asked. Standard library only: ``--help`` reads this."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ost_hf.errors import ConfigError, require_integer, require_range

# A line that says nothing else: "Rating (1-10): 7" or "a rating of 7 would be too high" must not become a number.
_NUMBER = r"-?\d+(?:\.\d+)?"
_RATING_LINE = (
    rf"(?im)^[ \t*_#>]*rating[ \t*_]*:[ \t*_]*({_NUMBER})[ \t*_]*(?:/[ \t]*(?P<highest>{_NUMBER}))?[ \t*_.]*$"
)


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """Scorer `judge`: a language model reads the row and rates it."""

    judge_model: str | None = field(
        default=None,
        metadata={
            "help": "judge: the model's name at judge_endpoint; without an endpoint a name on the Hub (name@revision "
            "pins it) or a local folder, loaded in every process"
        },
    )
    judge_endpoint: str | None = field(
        default=None,
        metadata={
            "help": "judge: base URL of an OpenAI-compatible server, such as http://localhost:8000/v1; by default "
            "judge_model is loaded here"
        },
    )
    judge_api_key_env: str | None = field(
        default=None,
        metadata={
            "help": "judge: NAME of the environment variable with the endpoint's key, never the key itself; by default "
            "no key is sent"
        },
    )
    judge_prompt_file: str | None = field(
        default=None,
        metadata={
            "help": "judge: Jinja file that makes the prompt of `question`, `answer` (of the last turn), `turns` and "
            "`system`, and of `lowest` and `highest` of the scale; by default a prompt for a rating on that scale"
        },
    )
    judge_pattern: str = field(
        default=_RATING_LINE,
        metadata={
            "help": "judge: regular expression whose first group is the rating; its last match in the reply counts, "
            "and only if a group named `highest`, where there is one, is judge_highest; by default a line such as "
            "`Rating: 7` or `Rating: 7/10`"
        },
    )
    judge_lowest: float = field(default=1.0, metadata={"help": "judge: lowest rating of the prompt's scale"})
    judge_highest: float = field(
        default=10.0, metadata={"help": "judge: highest rating; what lies outside is not parsed"}
    )
    judge_max_tokens: int = field(
        default=512, metadata={"help": "judge: longest reply in tokens; room for a few sentences before the rating"}
    )
    judge_concurrency: int = field(
        default=8, metadata={"help": "judge: requests under way at once in each process; more for a large server"}
    )
    judge_timeout: float = field(
        default=120.0, metadata={"help": "judge: seconds to wait for one reply; long enough for a busy server"}
    )
    judge_retries: int = field(
        default=5,
        metadata={
            "help": "judge: further attempts after HTTP 408, 409, 429, 5xx, a timeout or a lost connection; the waits "
            "double from half a second to 8, or are what the server's Retry-After says"
        },
    )

    def check_judge(self, chosen: bool) -> None:
        """Raises ``ConfigError`` for a value that is not allowed, or for a missing one if the judge was ``chosen``."""
        if chosen and not self.judge_model:
            raise ConfigError(
                "scorer 'judge' needs scoring.judge_model: the model's name at scoring.judge_endpoint, or without an "
                "endpoint a name on the Hub or a local folder"
            )
        require_range("scoring.judge_lowest", self.judge_lowest)
        require_range("scoring.judge_highest", self.judge_highest, above=self.judge_lowest)
        require_integer("scoring.judge_max_tokens", self.judge_max_tokens, at_least=1)
        require_integer("scoring.judge_concurrency", self.judge_concurrency, at_least=1)
        require_range("scoring.judge_timeout", self.judge_timeout, above=0)
        require_integer("scoring.judge_retries", self.judge_retries, at_least=0)
        self._check_pattern()
        self._check_endpoint()

    def _check_pattern(self) -> None:
        try:
            groups = re.compile(self.judge_pattern).groups
        except re.error as error:
            raise ConfigError(f"scoring.judge_pattern is no regular expression: {error}") from error
        if groups < 1:
            raise ConfigError(f"scoring.judge_pattern needs a group around the rating, got {self.judge_pattern!r}")

    def _check_endpoint(self) -> None:
        """The messages repeat neither value: a key may have been put there, and the manifest would keep it."""
        name = self.judge_api_key_env
        if name is not None and not re.fullmatch("[A-Z_][A-Z0-9_]*", name):
            raise ConfigError(
                "scoring.judge_api_key_env must be the name of an environment variable in capitals, such as "
                "JUDGE_API_KEY, not the key itself"
            )
        if self.judge_endpoint is None:
            if name is not None:
                raise ConfigError("scoring.judge_api_key_env names a key, but there is no scoring.judge_endpoint")
            return
        url = urlsplit(self.judge_endpoint)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ConfigError("scoring.judge_endpoint must be a base URL such as http://localhost:8000/v1")
        if "@" in url.netloc or url.query or url.fragment:
            raise ConfigError(
                "scoring.judge_endpoint must hold no password and no query: name the key's environment variable in "
                "scoring.judge_api_key_env"
            )
        if url.path.rstrip("/").endswith("/completions"):
            raise ConfigError(
                "scoring.judge_endpoint is the base URL, mostly ending in /v1: leave out what follows it "
                "(/chat/completions)"
            )
