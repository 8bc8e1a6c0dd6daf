"""Prompts as Jinja files: a scorer's own, or the user's in its place.

The options of a scorer that asks with prompts have ``PROMPTS``: for each option that may name a file, the scorer's own
file. Jinja is imported late: ``--help`` reads this.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ost_hf.errors import ConfigError

if TYPE_CHECKING:
    import jinja2

_VARIABLES = {"system", "turns", "question", "answer"}


def load_prompt(scorer: str, options: Any, option: str, more_variables: Iterable[str] = ()) -> jinja2.Template:
    """The prompt that an option names, or the scorer's own.

    Args:
        scorer: Whose options they are.
        options: With ``PROMPTS``.
        option: Such as ``prompt_file``.
        more_variables: What the prompt may ask for beside ``system``, ``turns``, ``question`` and ``answer``.

    Raises:
        ConfigError: If there is no such file, it is no Jinja, or it asks for a variable that does not exist.
    """
    import jinja2
    import jinja2.meta
    import jinja2.sandbox

    text = _read(scorer, options, option)
    variables = _VARIABLES | set(more_variables)
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    name = f"scoring.{scorer}.{option}"
    try:
        unknown = sorted(jinja2.meta.find_undeclared_variables(environment.parse(text)) - variables)
        prompt = environment.from_string(text)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"{name} is not valid Jinja, line {error.lineno}: {error.message}") from error
    if unknown:
        raise ConfigError(f"{name} asks for {', '.join(unknown)}; there are: {', '.join(sorted(variables))}")
    return prompt


def prompt_digests(scorer: str, options: Any) -> dict[str, str]:
    """A hash of what each prompt says, in place of its file's name: a manifest must know words."""
    return {
        option: hashlib.blake2b(_read(scorer, options, option).encode(), digest_size=10).hexdigest()
        for option in options.PROMPTS
    }


def _read(scorer: str, options: Any, option: str) -> str:
    named = getattr(options, option)
    path = Path(named).expanduser() if named else options.PROMPTS[option]
    if not path.is_file():
        raise ConfigError(f"scoring.{scorer}.{option}: there is no file {named}")
    return path.read_text(encoding="utf-8")
