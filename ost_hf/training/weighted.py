"""A loss in which every row has a weight.

The loss of an optimizer step, over all its micro-batches on all processes, is

    sum_i w_i sum_t l_it / sum_i w_i T_i

with l_it the cross-entropy of a row's supervised token and T_i how many of them the row has. With weights of 1 it is
the loss that ``Trainer`` takes when a model's loss counts the tokens of a whole step (``num_items_in_batch``).

A row's weight travels beside its model inputs: the dataset has it (:class:`ost_hf.training.marks.MarkedRows`), and the
collator passes it by (:class:`WeighedCollator`). When the batches of a step are there, their weights are scaled so that
the mean weight of a supervised token is 1. So ``num_items_in_batch`` stays what ``Trainer`` makes of it, and all that
it does with this number. In the forward pass, :class:`WeighedModel` puts the weighted loss in place of the model's own.

Letters: B rows of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from ost_hf.errors import ConfigError
from ost_hf.functional.loss import IGNORE_INDEX, weighted_loss
from ost_hf.tables.selection_table import WEIGHT


class WeighedCollator:
    """A collator that sees rows without their weights, and whose batches have them: ``[B]``."""

    def __init__(self, collator: Callable[[list[Any]], Any]):
        self.collator = collator

    def __call__(self, rows: list[Any]) -> Any:
        """Batches rows."""
        weights = [float(row[WEIGHT]) for row in rows]
        batch = self.collator([{key: value for key, value in row.items() if key != WEIGHT} for row in rows])
        batch[WEIGHT] = torch.tensor(weights, dtype=torch.float32)
        return batch


class WeighedModel:
    """A model in its wrappings, with the weighted loss of one micro-batch in place of its own.

    Args:
        model: What ``Trainer`` calls.
        weight_B: The weights, scaled for the step.
        balance: The factor with which a mixture of experts adds its balancing loss to the loss that it makes of labels.
    """

    def __init__(self, model: Any, weight_B: torch.Tensor, balance: float = 0.0):
        self._model, self._weight_B, self._balance = model, weight_B, balance
        self.was_called = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, **inputs: Any) -> Any:
        """The model's output, with the weighted loss."""
        self.was_called = True
        if inputs.get("fused_lm_head"):
            # TRL's own head: it sums what the output says of single tokens.
            outputs = self._model(**inputs)
            outputs.log_probs = outputs.log_probs * self._weight_B.to(outputs.log_probs)[:, None]
            return outputs
        labels_BT, count = inputs.pop("labels"), inputs.pop("num_items_in_batch", None)
        outputs = self._model(**inputs)
        logits_BTV = outputs.get("logits") if isinstance(outputs, Mapping) else None
        if logits_BTV is None or logits_BTV.shape[:2] != labels_BT.shape:
            raise ConfigError(
                "weighted_loss needs a causal model whose output has logits for each token of the labels, and that of "
                "this one has not: leave weighted_loss unset"
            )
        if count is None:
            count = (labels_BT[:, 1:] != IGNORE_INDEX).sum()
        loss = weighted_loss(logits_BTV, labels_BT, self._weight_B.to(logits_BTV.device), count)
        if outputs.get("aux_loss") is not None:
            loss = loss + self._balance * outputs["aux_loss"].to(loss.device)
        outputs["loss"] = loss
        return outputs


class WeightedLossMixin:
    """What a ``Trainer`` needs to weigh the losses of rows; idle until :meth:`_weigh` was called.

    It overrides ``get_batch_samples`` (which scales the weights of a step), ``training_step`` and ``compute_loss``, and
    adds the weights to the columns that a forward pass is said to take.
    """

    _weighs = False
    # Of the micro-batch in a training step.
    _weight_B: torch.Tensor | None = None

    def _weigh(self) -> None:
        """Weighs the losses of the training set's rows from now on, which bring a weight each.

        Raises:
            ConfigError: Where something else decides about the loss.
        """
        refuse_other_losses(self)
        self._weighs = True

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()  # type: ignore[misc]
        if self._weighs and WEIGHT not in self._signature_columns:  # type: ignore[has-type]
            self._signature_columns = [*self._signature_columns, WEIGHT]  # type: ignore[has-type]

    @contextmanager
    def _weighing_collator(self) -> Iterator[None]:
        """Has the collator of a loader that is made now pass weights by."""
        collator = self.data_collator  # type: ignore[has-type]
        try:
            if self._weighs:
                self.data_collator = WeighedCollator(collator)
            yield
        finally:
            self.data_collator = collator

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """Has ``Trainer`` count the tokens of a whole step, whether or not the model's own loss would ask for that."""
        before = self.model_accepts_loss_kwargs  # type: ignore[has-type]
        self.model_accepts_loss_kwargs = True
        try:
            yield
        finally:
            self.model_accepts_loss_kwargs = before

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """As in ``Trainer``, with the weights of a step scaled so that the mean weight of a token is 1."""
        if not self._weighs:
            return super().get_batch_samples(*args, **kwargs)  # type: ignore[misc]
        with self._counting():
            batches, count = super().get_batch_samples(*args, **kwargs)  # type: ignore[misc]
        self._scale(batches)
        return batches, count

    def _scale(self, batches: list[dict[str, Any]]) -> None:
        device = self.args.device  # type: ignore[attr-defined]
        # As `Trainer` counts them: a label predicts nothing where nothing stands before it.
        tokens = [(batch["labels"][:, 1:] != IGNORE_INDEX).sum(1).to(device, torch.float32) for batch in batches]
        weights = [batch[WEIGHT].to(device, torch.float32) for batch in batches]
        sums = [
            torch.stack([count_B.sum(), (weight_B * count_B).sum()])
            for count_B, weight_B in zip(tokens, weights, strict=True)
        ]
        total = torch.stack(sums).sum(0) if sums else torch.zeros(2, device=device)
        # Each process for itself where it is asked to take its own mean.
        if self.args.average_tokens_across_devices and self.args.world_size > 1:  # type: ignore[attr-defined]
            total = self.accelerator.gather(total[None]).sum(0)  # type: ignore[attr-defined]
        count, weighted = total
        factor = torch.where(weighted > 0, count / weighted, torch.zeros_like(weighted))
        for batch, weight_B in zip(batches, weights, strict=True):
            batch[WEIGHT] = weight_B * factor

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """As in ``Trainer``, by the weighted loss."""
        if not self._weighs:
            return super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        inputs = dict(inputs)
        self._weight_B = inputs.pop(WEIGHT)
        try:
            with self._counting():
                return super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        finally:
            self._weight_B = None

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """As in ``Trainer``; in a training step, by the weighted loss."""
        if self._weight_B is None:
            return super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
        text_config = self.model.config.get_text_config()  # type: ignore[attr-defined]
        weighed = WeighedModel(model, self._weight_B, getattr(text_config, "router_aux_loss_coef", 0.0))
        result = super().compute_loss(weighed, inputs, *args, **kwargs)  # type: ignore[misc]
        if not weighed.was_called:
            raise ConfigError("weighted_loss: the trainer's own compute_loss must call the model that it is given")
        return result


def refuse_other_losses(trainer: Any) -> None:
    """Raises ``ConfigError`` where something else than the model's cross-entropy is the loss, or rows are mixed."""
    args = trainer.args
    loss_type = getattr(args, "loss_type", "nll")
    parallel = getattr(trainer.accelerator, "parallelism_config", None)
    for name, is_set in {
        "label_smoothing_factor": bool(args.label_smoothing_factor),
        "use_liger_kernel": bool(args.use_liger_kernel),
        f"loss_type {loss_type!r} (only with 'nll')": loss_type != "nll",
        "compute_loss_func": trainer.compute_loss_func is not None,
        "packing": bool(getattr(args, "packing", False)),
        "padding_free": bool(getattr(args, "padding_free", False)),
        "parallelism_config with context or sequence parallelism": bool(
            getattr(parallel, "cp_enabled", False) or getattr(parallel, "sp_enabled", False)
        ),
        "several devices in one process": args.n_gpu > 1,
        "an encoder-decoder model": bool(getattr(getattr(trainer.model, "config", None), "is_encoder_decoder", False)),
    }.items():
        if is_set:
            raise ConfigError(
                f"weighted_loss does not go with {name}: it weighs the cross-entropy of a causal model, and needs rows "
                "that stay apart in a batch. Leave one of the two unset"
            )
