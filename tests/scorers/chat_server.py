"""A server on the loopback that speaks chat completions, and says what a test wants it to say."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loopback import Loopback, QuietHandler
from scored import build_scorer

from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.scorers.protocol import Score
from ost_hf.scoring.config import ScoringConfig


@dataclass
class Call:
    """One request: its JSON, its headers, and how often its prompt has come so far (1: the first time)."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    attempt: int

    @property
    def content(self) -> list[dict[str, Any]]:
        """The typed parts of the only message."""
        (message,) = self.body["messages"]
        assert message["role"] == "user"
        return message["content"]

    @property
    def prompt(self) -> str:
        """The text part, which comes last."""
        assert self.content[-1]["type"] == "text"
        return self.content[-1]["text"]


@dataclass
class Answer:
    """What is sent back: a reply's text, or an error's or another body."""

    text: str = ""
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    finish_reason: str = "stop"

    def payload(self) -> bytes:
        """The body."""
        if self.body is not None:
            return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        if self.status != 200:
            return json.dumps({"error": {"message": self.text}}).encode()
        message = {"role": "assistant", "content": self.text}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        whole = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        return json.dumps(whole).encode()


class ChatServer(Loopback):
    """Answers as a test says.

    Attributes:
        calls: Every request, in the order of arrival.
        most_at_once: The highest number of requests under way together.
    """

    def __init__(self, answer: Callable[[Call], Answer | str]):
        super().__init__(_Handler)
        self.answer = answer
        self.calls: list[Call] = []
        self.headers_of_probes: list[dict[str, str]] = []
        self.most_at_once = 0
        self._open = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """The base URL."""
        return f"{super().url}/v1"

    def handle(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> Answer:
        """Counts the request and asks the test for an answer."""
        with self._lock:
            attempt = 1 + sum(call.body["messages"] == body["messages"] for call in self.calls)
            call = Call(path, body, headers, attempt)
            self.calls.append(call)
            self._open += 1
            self.most_at_once = max(self.most_at_once, self._open)
        try:
            answer = self.answer(call)
        finally:
            with self._lock:
                self._open -= 1
        return Answer(answer) if isinstance(answer, str) else answer


class _Handler(QuietHandler):
    owner: ChatServer

    def do_GET(self) -> None:
        self.owner.headers_of_probes.append(dict(self.headers))
        self.send_error(404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = self.owner.handle(self.path, body, {name.lower(): value for name, value in self.headers.items()})
        payload = answer.payload()
        try:
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)
        except (BrokenPipeError, ConnectionResetError):
            # A client that stopped waiting.
            self.close_connection = True


def asks(server: ChatServer | str, *, config: Mapping[str, Any] | None = None, **options: Any) -> ScoringConfig:
    """A judge that asks a server, or the one at an address, once.

    Args:
        server: The server.
        config: Fields of ``ScoringConfig``.
        **options: Options of the judge.
    """
    url = server if isinstance(server, str) else server.url
    return judge(config=config, **{"model": "m", "endpoint": url, "retries": 0, **options})


def judge(*, config: Mapping[str, Any] | None = None, **options: Any) -> ScoringConfig:
    """A judge with some options."""
    return ScoringConfig("judge", sections={"judge": options}, **(config or {}))


def judged(config: ScoringConfig, pool: EncodedDataset, rows: list[int] | None = None) -> list[Score]:
    """What the judge says of rows of a pool, or of all."""
    scorer = build_scorer(config, pool=pool)
    return scorer.score([pool.encode(row) for row in (range(len(pool)) if rows is None else rows)])
