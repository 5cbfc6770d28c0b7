"""What the three trainers share: losses as means over a whole step, exact order, real saving."""

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers.trainer_utils import EvalLoopOutput

from collators.epochs import EpochCallback, EpochRows
from trainers.distributed.sharding import keep_fp32_outside
from trainers.guards.evaluating import EvaluatingTrainer, Measure
from trainers.guards.idle_steps import SignalTrainer
from trainers.guards.interruption import leave_signals_alone

if TYPE_CHECKING:
    from trainers.config.arguments import TandemArguments


class LossTrainer(SignalTrainer, EvaluatingTrainer):
    """A ``Trainer`` that is given a loss; subclasses carry the tensors to it in ``compute_loss``.

    A loss is a mean over the items of a batch (rows, weighted rows or groups: ``count_items``).
    ``share`` turns it into its part of the mean over all batches of an optimiser step, over
    accumulated batches and processes alike: 4 x 8 rows give the gradient of 32, also with weights
    and a short last batch.

    Args:
        model: An ``Embedder`` or a ``Reranker``.
        args: The run's arguments.
        loss: Called by ``compute_loss`` with tensors.
        train_dataset: Rows; see ``collators.epochs`` for what is added to them. Or ``EpochRows``.
        eval_dataset: Rows, all of them seen as in epoch 0.
        measure: Called with the model at every evaluation, on every process; gives metrics by
            name, which are logged beside the loss and may choose the best checkpoint. One that has
            no value is given as the reason.
    """

    # `share` has done what Trainer would do by dividing by the accumulation steps.
    loss_is_scaled_for_ga = True
    observed: tuple[str, ...] = ()  # metrics that `compute_loss` observes beside the loss
    model: nn.Module
    args: "TandemArguments"

    def __init__(
        self,
        *,
        model: nn.Module,
        args: "TandemArguments",
        loss: nn.Module,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        measure: Measure | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            model,
            args,
            train_dataset=_numbered(train_dataset),
            eval_dataset=_numbered(eval_dataset),
            **kwargs,
        )
        self.loss = loss
        self.measure = measure
        # What evaluate() asks before it calls compute_loss() on batches without "labels":
        self.label_names, self.can_return_loss = [], True
        self._observed: dict[bool, dict[str, list[Tensor]]] = {}
        self._forget(training=True)
        self._forget(training=False)
        self._before_step: dict[str, list[Tensor]] = {}
        self._skipped_since_log = False

    def create_accelerator_and_postprocess(self) -> None:
        """``Trainer``'s; with FSDP, what is summed and given out stays in fp32."""
        super().create_accelerator_and_postprocess()
        if self.is_fsdp_enabled:
            keep_fp32_outside(self.accelerator.state.fsdp_plugin)

    def count_items(self, inputs: dict[str, Any]) -> Tensor:
        """What the loss of this batch is a mean over.

        Groups where candidates are compared, else the pairs' weights: one of weight 2 is two.
        """
        if "mask" in inputs:
            return torch.tensor(float(len(inputs["mask"])), device=inputs["mask"].device)
        weights: Tensor = inputs["weights"].sum()
        return weights

    def share(self, loss: Tensor, inputs: dict[str, Any], num_items_in_batch: Any) -> Tensor:
        """This batch's part of the mean over all ``num_items_in_batch`` items of the step."""
        items = self.count_items(inputs)
        self.observe("loss", loss, items)
        if num_items_in_batch is None:
            return loss
        # DDP takes the mean over the processes where the sum is wanted.
        return loss * (items / num_items_in_batch) * self.accelerator.num_processes

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Items of all batches of a step, on all processes; ``Trainer`` hands it on."""
        if not batch_samples:
            return None
        items = torch.stack([self.count_items(batch) for batch in batch_samples]).sum().to(device)
        if self.accelerator.num_processes > 1:
            items = self.accelerator.gather(items).sum()
        return items

    # Metrics beside the loss: observed per batch, logged as means.

    def observe(self, name: str, value: Tensor, items: Tensor) -> None:
        """Note a metric of this batch; its mean over the items seen is logged with the loss."""
        sums = self._observed[self.model.training][name]
        sums[0] = sums[0] + value.detach().float() * items
        sums[1] = sums[1] + items

    def _forget(self, training: bool) -> None:
        zero = torch.zeros((), device=self.args.device)
        self._observed[training] = defaultdict(lambda: [zero, zero])

    def _observations(self, training: bool) -> dict[str, float]:
        """Means over all processes since the last call."""
        means = {}
        for name, sums in self._observed[training].items():
            total = torch.stack(sums)
            if self.accelerator.num_processes > 1:
                total = self.accelerator.reduce(total, "sum")
            means[name] = (total[0] / total[1]).item()
        self._forget(training)
        return means

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log training's other metrics with its loss."""
        if "loss" in logs:
            if self._skipped_since_log:  # `Trainer`'s mean counts the steps that were skipped
                logs = {name: value for name, value in logs.items() if name != "loss"}
                self._skipped_since_log = False
            logs = {**self._observations(training=True), **logs}
        super().log(logs, start_time)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The batches of a step."""
        self.begin_step()
        self._before_step = {name: list(sums) for name, sums in self._observed[True].items()}
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def skip_step(self, model: nn.Module, reason: str) -> None:
        """Forget what was observed in the step, too."""
        self._forget(training=True)
        self._observed[True].update(self._before_step)
        self._skipped_since_log = True
        super().skip_step(model, reason)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """``Trainer``'s loop, with means over items where it takes means over batches."""
        self._forget(training=False)
        output = super().evaluation_loop(*args, **kwargs)
        metrics: dict[str, float | str] = output.metrics or {}  # type: ignore[assignment]
        found: dict[str, float | str] = dict(self._observations(training=False))
        if self.measure is not None:
            found |= self.measured(self.measure)
        prefix = kwargs.get("metric_key_prefix", "eval")
        metrics |= {f"{prefix}_{name}": value for name, value in found.items()}
        return output._replace(metrics=self.keep_defined(metrics))

    # Order of the rows.

    def get_train_dataloader(self) -> DataLoader[Any]:
        """``Trainer``'s, leaving the global random numbers and the signals alone."""
        return _left_alone(super().get_train_dataloader())

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """``Trainer``'s of all rows, leaving the global random numbers and the signals alone."""
        # dataloader_drop_last is about training: a loss is measured on every row.
        drop_last, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return _left_alone(super().get_eval_dataloader(eval_dataset))
        finally:
            self.args.dataloader_drop_last = drop_last

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[int]:
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        assert isinstance(self.train_dataset, EpochRows)
        sampler = self.train_dataset.sampler(seed, self.get_total_train_batch_size(self.args))
        self.remove_callback(EpochCallback)
        self.add_callback(EpochCallback(sampler, self.train_dataset.counts()))
        return sampler


def _numbered(rows: Any) -> EpochRows | None:
    return rows if rows is None or isinstance(rows, EpochRows) else EpochRows(rows)


def _left_alone(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Give a loader a generator of its own for the seeds of its workers, who heed no signal.

    Drawn from the global one, as is usual, they would shift dropout's numbers by how many iterators
    were made, so that persistent workers, resumed runs and runs with evaluations would differ. No
    worker draws random numbers, so that nothing else is to be done when one begins.
    """
    own = getattr(loader, "base_dataloader", loader)
    own.generator = torch.Generator()
    own.worker_init_fn = leave_signals_alone
    return loader
