"""Base trainer: item-weighted loss across accumulation and processes; deterministic order.

The parts that it has, each in a file of its own: ``NaNGuard``, ``IdleSteps``, ``UndefinedMetrics``
and ``ItemMeans``. The hooks of ``Trainer`` overridden here hand over to them.
"""

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers.optimization import GreedyLR
from transformers.trainer_utils import EvalLoopOutput, get_last_checkpoint

from collators.epochs import EpochCallback, EpochRows, as_epoch_rows
from encoders.backbone import Encoder
from evaluation.measure import Evaluated, Evaluator
from trainers.checkpoints.trainer import CheckpointTrainer, WriteCard
from trainers.checkpoints.write_errors import SavingFailed
from trainers.config.arguments import TandemArguments
from trainers.config.learning_rates import set_learning_rate
from trainers.distributed.compiling import compile_unpadded
from trainers.distributed.item_means import ItemMeans
from trainers.distributed.sharding import keep_fp32_outside, unsharded
from trainers.guards.base_comparison import BaseComparison, copy_new_weights
from trainers.guards.dataloaders import IsolatedDataLoaders
from trainers.guards.evaluations import EvaluationFailed, UndefinedMetrics, describe
from trainers.guards.idle_steps import IdleSteps
from trainers.guards.nan_guard import NaNGuard, NonFiniteError, count_skipped

logger = logging.getLogger(__name__)


class BaseTrainer(CheckpointTrainer):
    """A ``Trainer`` that is given a loss; subclasses override ``compute_loss``.

    A loss is a mean over the items of a batch (queries, groups or weighted pairs: ``count_items``).
    ``scale_loss`` turns it into its share of the mean over all batches of an optimizer step, over
    accumulated batches and processes alike: 4 x 8 rows give the gradient of 32, also with weights
    and a short last batch.

    Args:
        model: An ``Embedder`` or a ``Reranker``.
        args: The run's arguments.
        loss: Called by ``compute_loss`` with tensors.
        train_dataset: Rows; made ``EpochRows`` here unless they are already.
        eval_dataset: Rows, all of them seen as in epoch 0.
        evaluator: Called with the model at every evaluation, on every process. Its metrics are
            logged beside the loss and may choose the best checkpoint.
        write_card: Writes the card of a saved model.
        kwargs: As for ``Trainer``.
    """

    loss_is_scaled_for_ga = True  # by `scale_loss`; Trainer would divide by accumulation steps
    recorded_metrics: tuple[str, ...] = ()  # that `compute_loss` records beside the loss

    def __init__(
        self,
        *,
        model: nn.Module,
        args: TandemArguments,
        loss: nn.Module,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        evaluator: Evaluator | None = None,
        write_card: WriteCard | None = None,
        **kwargs: Any,
    ) -> None:
        self.dataloaders = IsolatedDataLoaders()
        super().__init__(
            model,
            args,
            train_dataset=None if train_dataset is None else as_epoch_rows(train_dataset),
            eval_dataset=None if eval_dataset is None else as_epoch_rows(eval_dataset),
            **kwargs,
        )
        self.loss, self.evaluator, self.write_card = loss, evaluator, write_card
        # What evaluate() asks before it calls compute_loss() on batches without "labels":
        self.label_names, self.can_return_loss = [], True
        self.nan_guard = NaNGuard(args, self.accelerator)
        self.idle_steps = IdleSteps(self.accelerator)
        self.undefined = UndefinedMetrics(args)
        self.train_means, self.eval_means = ItemMeans(self.accelerator), ItemMeans(self.accelerator)
        # A sharded model cannot be measured before the first step.
        compared = None if self.is_fsdp_enabled else evaluator
        self.base_comparison = BaseComparison(compared) if compared else None
        self.initial_new_weights = copy_new_weights(model)
        self._skipped_since_log = False

    def create_accelerator_and_postprocess(self) -> None:
        """With FSDP, keep gradients' sums and the model's output in fp32; compile the layers."""
        super().create_accelerator_and_postprocess()
        if self.is_fsdp_enabled:
            keep_fp32_outside(self.accelerator.state.fsdp_plugin)
        compile_unpadded(self.model, self.accelerator.state)

    # The loss.

    def count_items(self, inputs: dict[str, Any]) -> Tensor:
        """What the loss of a batch is a mean over, a float []: queries, groups, or pairs' weights.

        ``Trainer`` calls them items (``num_items_in_batch``). A pair of weight 2 counts as two.
        """
        for key in ("positives", "mask"):  # of queries; of groups
            if key in inputs:
                return torch.tensor(float(len(inputs[key])), device=inputs[key].device)
        weights: Tensor = inputs["weights"].sum()
        return weights

    def scale_loss(self, loss: Tensor, inputs: dict[str, Any], num_items_in_batch: Any) -> Tensor:
        """This batch's share of the mean over all ``num_items_in_batch`` items of the step."""
        items = self.count_items(inputs)
        self.record_metric("loss", loss, items)
        if num_items_in_batch is None:
            return loss
        # DDP takes the mean over the processes where the sum is wanted.
        share: Tensor = loss * (items / num_items_in_batch) * self.accelerator.num_processes
        return share

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Items of all batches of a step, on all processes; ``Trainer`` passes it on."""
        if not batch_samples:
            return None
        items = torch.stack([self.count_items(batch) for batch in batch_samples]).sum().to(device)
        return self.accelerator.gather(items).sum()

    def record_metric(self, name: str, value: Tensor, items: Tensor) -> None:
        """Record a metric of this batch; its mean over the items seen is logged with the loss."""
        means = self.train_means if self.model.training else self.eval_means
        means.add(name, value, items)

    def record_signal(self, has_signal: Tensor, reason: str) -> None:
        """Record for ``IdleSteps`` whether a batch has a training signal, and why it would not."""
        if self.model.training:
            self.idle_steps.record(has_signal, reason)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Give weights that the base does not have (a new head) a learning rate of their own."""
        rate = self.args.head_learning_rate if self.optimizer is None else None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if rate is not None:
            weights = self.model if model is None else model
            names = self.accelerator.unwrap_model(weights).new_weights
            heads = {weight for name, weight in weights.named_parameters() if name in names}
            set_learning_rate(optimizer, heads, rate)
        return optimizer

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Begin a step: its batches, and how many items they have."""
        self.idle_steps.begin_step(self.state)
        self.train_means.begin_step()
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.nan_guard.begin_step(batches)
        return batches, items

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Forward and backward pass of one batch."""
        loss: Tensor = super().training_step(*args, **kwargs)
        self.nan_guard.add_loss(loss)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Called between the last backward pass of a step and the optimizer: the place to skip."""
        norm = super()._get_grad_norm(model, grad_norm)  # type: ignore[no-untyped-call]
        reason = self.nan_guard.find_bad_step(model, norm, self.state.global_step + 1)
        if reason is None:
            return norm
        # Without gradients the optimizer leaves the weights and its moments alone.
        model.zero_grad(set_to_none=True)
        self.train_means.undo_step()
        self._skipped_since_log = True
        if self.is_world_process_zero():
            logger.warning("%s; skipped (on_bad_loss)", reason)
        self.log({"skipped_steps": count_skipped(self.state) + 1})
        return None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the recorded metrics and the idle steps with the loss of training."""
        if "loss" in logs:
            if self._skipped_since_log:  # Trainer's mean includes the steps that were skipped
                logs = {name: value for name, value in logs.items() if name != "loss"}
                self._skipped_since_log = False
            logs = {**self.train_means.pop(), **logs}
        if "loss" in logs or "train_loss" in logs:
            idle = self.idle_steps.pop(self.state)
            logs = {**logs, "idle_steps": idle} if idle else logs
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model, unless its weights are not finite."""
        self.nan_guard.check_weights(self.model, self.state.global_step)
        super().save_model(output_dir, _internal_call)

    # Evaluation.

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate; the final model is saved before the last evaluation of a run, if it is known.

        Raises:
            EvaluationFailed: Whatever went wrong; in training there is a checkpoint of this step.
        """
        self.weights_step = None  # the log has whatever is evaluated under the last step
        last = self.is_in_train and self.state.global_step >= self.state.max_steps
        if last and not self.args.load_best_model_at_end:
            self.save_model(_internal_call=True)
        try:
            return super().evaluate(*args, **kwargs)
        except (NonFiniteError, SavingFailed):
            raise
        except Exception as error:
            failed = f"the evaluation after step {self.state.global_step} failed: {describe(error)}"
            raise EvaluationFailed(f"{failed}; {self._save_and_name_checkpoint()}") from error

    def _save_and_name_checkpoint(self) -> str:
        """Save a checkpoint after a failed evaluation; name where to resume, for the message."""
        output_dir = self.args.output_dir
        if not self.is_in_train:
            return f"the model of this step is in {output_dir}"
        # Saving is collective, and the other processes may not have failed.
        if self.args.world_size == 1 and self._step_saved != self.state.global_step:
            self._save_checkpoint(self.model, None)
        last = get_last_checkpoint(str(output_dir))
        return "there is no checkpoint yet" if last is None else f"the last checkpoint is {last}"

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Evaluate with means over items, where ``Trainer`` takes means over batches."""
        self.eval_means.clear()
        output = super().evaluation_loop(*args, **kwargs)
        metrics: dict[str, float | str] = output.metrics or {}  # type: ignore[assignment]
        found: dict[str, float | str] = dict(self.eval_means.pop())
        if self.evaluator is not None:
            judged = self.run_evaluator(self.evaluator)
            found |= self.evaluator.metric_values(judged)
            if self.base_comparison is not None:
                self.base_comparison.compare(judged, self.state)
        prefix = kwargs.get("metric_key_prefix", "eval")
        metrics |= {f"{prefix}_{name}": value for name, value in found.items()}
        defined = self.undefined.split_off(metrics, self.state, self.is_world_process_zero())
        return output._replace(metrics=defined)

    def run_evaluator(self, evaluator: Evaluator) -> Evaluated:
        """Evaluate the model as it is now."""
        reshard = self.is_fsdp_enabled and self.accelerator.state.fsdp_plugin.reshard_after_forward
        model: Encoder = self.accelerator.unwrap_model(self.model)
        with unsharded(model, reshard):
            return evaluator.evaluate(model)

    def _evaluate(
        self, trial: Any, ignore_keys_for_eval: Any, skip_scheduler: bool = False
    ) -> dict[str, float]:
        metrics = super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler=True)
        # Trainer's own would fail where the scheduler's metric has no value this time.
        scheduler: Any = self.lr_scheduler
        waits = isinstance(scheduler, ReduceLROnPlateau | GreedyLR) and not skip_scheduler
        if waits and self.undefined.best in metrics:
            scheduler.step(metrics[self.undefined.best])
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        if self.undefined.best in self.undefined.reasons:
            return False
        return super()._determine_best_metric(metrics, trial)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Measure the base, train, and say so if there is no best model to load at the end."""
        if self.base_comparison is not None:
            # The weights of a checkpoint to resume from are loaded later.
            self.base_comparison.begin(self.accelerator.unwrap_model(self.model))
        try:
            output = super().train(*args, **kwargs)
        finally:
            self.dataloaders.end_workers()
        if self.args.load_best_model_at_end and self.is_world_process_zero():
            self.undefined.warn_of_no_best(self.state)
        return output

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Leave the global random generator and the signals alone, and name the rows."""
        return self.dataloaders.add(self.nan_guard.name_rows(super().get_train_dataloader()))

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Take all rows: ``dataloader_drop_last`` is about training."""
        drop_last, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return self.dataloaders.add(super().get_eval_dataloader(eval_dataset))
        finally:
            self.args.dataloader_drop_last = drop_last

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[int]:
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        assert isinstance(self.train_dataset, EpochRows)
        sampler = self.train_dataset.sampler(seed, self.get_total_train_batch_size(self.args))
        self.remove_callback(EpochCallback)
        self.add_callback(EpochCallback(sampler, self.train_dataset, self.eval_dataset))
        return sampler
