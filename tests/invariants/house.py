"""Counts what must stay small: lines of files and functions, fields of configurations, parameters.

python tests/invariants/house.py
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "ost_hf"

LIMITS = {"lines of a file": 350, "lines of a function": 50, "own fields of a configuration": 15, "parameters": 8}
# The trainers' keywords stand beside Trainer's own.
_OF_TRAINERS = {"OSTTrainer.__init__"}


@dataclass(frozen=True)
class Count:
    """One number: of which kind, where, and how large."""

    kind: str
    where: str
    number: int


def counts() -> Iterator[Count]:
    """Every file's, function's and configuration's numbers."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE.parent)
        text = path.read_text()
        yield Count("lines of a file", str(name), text.count("\n"))
        yield from _of_tree(ast.parse(text), str(name))


def _of_tree(tree: ast.AST, where: str, inside: str = "") -> Iterator[Count]:
    for node in ast.iter_child_nodes(tree):
        name = f"{inside}{getattr(node, 'name', '')}"
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield Count("lines of a function", f"{where}:{name}", (node.end_lineno or node.lineno) - node.lineno + 1)
            if name not in _OF_TRAINERS:
                yield Count("parameters", f"{where}:{name}", _parameters(node))
        elif isinstance(node, ast.ClassDef) and name.endswith(("Config", "Options", "Arguments")):
            fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and not _is_class_variable(item)]
            yield Count("own fields of a configuration", f"{where}:{name}", len(fields))
        yield from _of_tree(node, where, f"{name}." if hasattr(node, "name") else inside)


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = node.args
    names = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    return len([one for one in names if one.arg not in ("self", "cls")])


def _is_class_variable(item: ast.AnnAssign) -> bool:
    return "ClassVar" in ast.unparse(item.annotation)


def largest(kind: str, number: int = 3) -> list[Count]:
    """The largest of a kind, largest first."""
    return sorted((count for count in counts() if count.kind == kind), key=lambda count: -count.number)[:number]


def main() -> None:
    """Prints the largest of each kind beside its limit."""
    for kind, limit in LIMITS.items():
        print(f"{kind} (at most {limit}): " + "; ".join(f"{each.number} {each.where}" for each in largest(kind)))


if __name__ == "__main__":
    main()
