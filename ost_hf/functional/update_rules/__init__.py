"""Rules of the simulated step: a file each, found by name.

A rule is a class under ``@update_rule("NAME")`` with the functions of :class:`RuleFunctions`; ``sgd.py`` is the
shortest. Ours stand in this package, each in a module of its name. One of yours may stand in any Python file that is
imported before its name is asked for. Settings and moments reach a rule as an
:class:`~ost_hf.functional.step.UpdateRule`, so a rule keeps nothing.

Does not import torch: choices and defaults of configurations are read here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from ost_hf.errors import ConfigError
from ost_hf.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from ost_hf.functional.step import UpdateRule


class RuleFunctions(Protocol):
    """What estimators need of a rule. Letters: B samples.

    Attributes:
        needs_moments: Whether the moments of a warm-up are required (``rule.moments``).
        default_learning_rate: Of the simulated step.
        default_betas: What ``rule.betas`` is if a caller names none.
        has_linear_rate: Whether the displacement has a derivative at a zero gradient, which estimator ``forward``
            needs. If not, :meth:`linear_rate` raises.
    """

    needs_moments: bool
    default_learning_rate: float
    default_betas: tuple[float, float] = (0.9, 0.999)
    has_linear_rate: bool = True

    @abstractmethod
    def move(self, rule: UpdateRule, name: str, gradient: Tensor) -> Tensor:
        """What the gradient and the moments move, weight decay aside: ``theta' - theta + eta lambda theta``.

        Args:
            rule: Settings and moments.
            name: The parameter's name in the moments.
            gradient: Of the parameter's shape, or ``[B, *parameter shape]``. Samples must not meet one another.

        Returns:
            A new tensor of the gradient's shape.
        """
        ...

    @abstractmethod
    def linear_rate(self, rule: UpdateRule, name: str, parameter: Tensor) -> Tensor:
        """Gives c with ``displacement ~ -c g``, the displacement's derivative at g = 0.

        Args:
            rule: Settings and moments.
            name: The parameter's name in the moments.
            parameter: For shape and type.

        Returns:
            c, of the parameter's shape.

        Raises:
            ConfigError: If there is no derivative.
        """
        ...

    @abstractmethod
    def preconditioner(self, rule: UpdateRule, name: str, parameter: Tensor) -> Tensor:
        """Gives P, the metric in which ``mean_cosine`` and sketches compare gradients: ``<g, P h>``.

        Every rule has one, for all that ``reverse`` scores. A common factor of all P does not change a cosine.

        Args:
            rule: Settings and moments.
            name: The parameter's name in the moments.
            parameter: For shape and type.

        Returns:
            P, of the parameter's shape and positive.
        """
        ...


UPDATE_RULES: Registry[RuleFunctions] = Registry(
    "update rule", "ost_hf.functional.update_rules", entry_points="ost_hf.update_rules"
)

Functions = TypeVar("Functions", bound=RuleFunctions)


def update_rule(name: str) -> Callable[[type[Functions]], type[Functions]]:
    """Registers an instance of the decorated class, made without arguments.

    Args:
        name: What configurations call the rule.

    Raises:
        ConfigError: If the class lacks a member of :class:`RuleFunctions`. Inherit from it to get its defaults.
    """

    def register(cls: type[Functions]) -> type[Functions]:
        wanted = [*RuleFunctions.__annotations__, *sorted(RuleFunctions.__abstractmethods__)]
        given = {member: getattr(cls, member, None) for member in wanted}
        missing = [
            member for member, value in given.items() if value is None or getattr(value, "__isabstractmethod__", False)
        ]
        if missing:
            raise ConfigError(
                f"update rule {name!r} ({cls.__name__}) lacks {', '.join(missing)}: see RuleFunctions in "
                "ost_hf.functional.update_rules"
            )
        UPDATE_RULES.add(name, cls())
        return cls

    return register
