"""A ``Trainer`` with atomic checkpoints, exact resuming, and model folders, not state dicts."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from torch import nn
from transformers import Trainer
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import TrainOutput

from collators.epochs import EpochRows
from common.run_files import MODEL_PART, NOT_UPLOADED, STATE_FILE
from trainers.checkpoints.files import (
    make_empty,
    part_path,
    put_in_place,
    put_model_in_place,
    rotate,
    write_manifest,
)
from trainers.checkpoints.resume import best_checkpoint, limit_reached, read_state
from trainers.checkpoints.write_errors import SavingFailed, write_errors
from trainers.config.arguments import TandemArguments
from trainers.guards.interruption import Interrupted

# Writes a card into a saved model's folder, given the log history and each source's row count.
WriteCard = Callable[[Path, Sequence[Mapping[str, Any]], Sequence[int] | None], None]


class CheckpointTrainer(Trainer):
    """Saves what ``Trainer`` saves, atomically, and resumes from it bit-identically.

    Attributes:
        write_card: Called after every save of the model; None: no card.
        weights_step: Of the model's weights, where they are not those of the last step.
    """

    args: TandemArguments
    model: nn.Module
    write_card: WriteCard | None = None
    weights_step: int | None = None
    _step_saved = -1  # of the last checkpoint

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint aside, with its manifest, and rename it once it is complete."""
        self.store_flos()
        output_dir, name = Path(self.args.output_dir), f"checkpoint-{self.state.global_step}"
        best = output_dir / f"checkpoint-{self.state.best_global_step}"
        if best.name == name or best.is_dir():
            self.state.best_model_checkpoint = str(best)
        part, writes = part_path(output_dir / name), self.args.should_save
        with write_errors(name, output_dir, part):
            if writes:
                make_empty(part)
        with write_errors(name, output_dir, part):
            self._write_checkpoint(str(part))
        # The manifest lists every process's files: this block starts when all have written.
        with write_errors(name, output_dir, part):
            if writes:
                write_manifest(part)
                put_in_place(part, output_dir / name)
                rotate(output_dir, self.args.save_total_limit, kept=(output_dir / name, best))
        self._step_saved = self.state.global_step

    def _write_checkpoint(self, folder: str) -> None:
        """Write this process's share of a checkpoint."""
        self.save_model(folder, _internal_call=True)
        if not self.args.save_only_model:
            self._save_optimizer_and_scheduler(folder)
            self._save_scaler(folder)
            self._save_rng_state(folder)
        if self.args.should_save:
            states: Any = self.state.stateful_callbacks
            for callback in [*self.callback_handler.callbacks, self.control]:
                if isinstance(callback, ExportableState):
                    states[type(callback).__name__] = callback.state()
            self.state.save_to_json(str(Path(folder) / STATE_FILE))

    def save_state(self) -> None:
        """Write ``trainer_state.json`` into the run's folder."""
        with write_errors(STATE_FILE, Path(self.args.output_dir)):
            super().save_state()

    # Resuming from a checkpoint, and stopping at one.

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> TrainOutput:
        """Train; a run whose checkpoint is at its last step takes no further one.

        Raises:
            Interrupted: A callback raised it at the beginning of a step; there is a checkpoint.
            SavingFailed: A checkpoint could not be written.
        """
        checkpoint = resume_from_checkpoint
        if isinstance(checkpoint, str) and limit_reached(self.args, read_state(Path(checkpoint))):
            return self._restore_end(checkpoint)
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        except Interrupted:
            if self._step_saved != self.state.global_step:
                self._save_checkpoint(self.model, None)
            raise

    def _restore_end(self, checkpoint: str) -> TrainOutput:
        """Restore the state after the last step of a run killed before its model was saved."""
        self.state = self.state.load_from_json(str(Path(checkpoint) / STATE_FILE))
        best = best_checkpoint(self.args, vars(self.state))
        if best is None:
            self._load_from_checkpoint(checkpoint)
        else:
            self.state.best_model_checkpoint = str(best)
            self._load_best_model()
        return TrainOutput(self.state.global_step, 0.0, {})

    def _init_training_state(self, max_steps: int, *args: Any) -> tuple[int, int]:
        begin: tuple[int, int] = super()._init_training_state(max_steps, *args)
        # Trainer's own leaves a resumed run the checkpoint's logging_steps, eval_steps, save_steps.
        self.state.compute_steps(self.args, max_steps)
        return begin

    def _load_callback_state(self) -> None:
        # Unlike Trainer's own, which rebuilds callbacks with their old arguments: early stopping
        # keeps its count, with the patience of the current recipe.
        states: Any = self.state.stateful_callbacks
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ExportableState) and type(callback).__name__ in states:
                vars(callback).update(states[type(callback).__name__]["attributes"])

    # Saving: a checkpoint is a model folder that anything can open, never a bare state dict.

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model, also where FSDP's checkpoints are sharded (``Trainer`` would not)."""
        if self.is_fsdp_enabled:
            kind = self.accelerator.state.fsdp_plugin.state_dict_type.name
            if kind == "SHARDED_STATE_DICT":
                self._save(output_dir, self.accelerator.get_state_dict(self.model))
        super().save_model(output_dir, _internal_call)

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        """Called on every process; one writes."""
        folder, final = Path(output_dir or self.args.output_dir), Path(self.args.output_dir)
        if folder != final:  # inside a checkpoint, which is atomic as a whole
            if self.args.should_save:
                self._write_model(folder, state_dict)
            return
        with write_errors("the model", final, final / MODEL_PART):
            if self.args.should_save:
                make_empty(final / MODEL_PART)
                self._write_model(final / MODEL_PART, state_dict)
                put_model_in_place(final)

    def _write_model(self, folder: Path, state_dict: dict[str, Any] | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.accelerator.unwrap_model(self.model).save_pretrained(folder, state_dict=state_dict)
        if self.write_card is not None:
            rows = self.train_dataset
            counts = rows.counts() if isinstance(rows, EpochRows) else None
            step = self.state.global_step if self.weights_step is None else self.weights_step
            log = [entry for entry in self.state.log_history if entry["step"] <= step]
            self.write_card(folder, log, counts)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        self.accelerator.unwrap_model(self.model).load_weights(resume_from_checkpoint)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        is_best: bool = super()._determine_best_metric(metrics, trial)
        # Also between save_steps: a run cannot end with a model that is nowhere.
        self.control.should_save |= is_best and self.args.load_best_model_at_end
        return is_best

    def _load_best_model(self) -> None:
        # Trainer's own only warns if the best checkpoint is gone, and would save the last weights.
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))
        self.weights_step = self.state.best_global_step

    def init_hf_repo(self, *args: Any, **kwargs: Any) -> None:
        """Create the repository, before anything is trained; the model card names it.

        Raises:
            SavingFailed: Its name cannot be, or the Hub refuses.
        """
        try:
            super().init_hf_repo(*args, **kwargs)
        except Exception as error:
            name = self.args.hub_model_id or Path(self.args.output_dir).absolute().name
            raise SavingFailed(
                f"push_to_hub: {name} cannot be created on the Hub ({one_line(error)}); give "
                "another hub_model_id, organisation/name, or leave push_to_hub out"
            ) from error
        self.args.hub_model_id = self.hub_model_id or self.args.hub_model_id

    def push_to_hub(  # type: ignore[override]
        self, commit_message: str = "Model save", **_: Any
    ) -> None:
        """Upload the model and its card; logs, rejected rows and checkpoints stay here.

        Raises:
            SavingFailed: It was not uploaded.
        """
        if not self.is_world_process_zero():
            return
        if self.hub_model_id is None:
            self.init_hf_repo()
        try:
            HfApi().upload_folder(
                repo_id=str(self.hub_model_id),
                folder_path=str(self.args.output_dir),
                commit_message=commit_message,
                token=self.args.hub_token,
                revision=self.args.hub_revision,
                ignore_patterns=NOT_UPLOADED,
            )
        except Exception as error:
            raise SavingFailed(
                f"push_to_hub: the model is in {self.args.output_dir}, but could not be uploaded "
                f"to {self.hub_model_id} ({one_line(error)}); upload its files from there, such as "
                f"with hf upload {self.hub_model_id} {self.args.output_dir} --exclude "
                "'checkpoint-*' '*.log' 'rejected_*'"
            ) from error


def one_line(error: Exception) -> str:
    """What an error says, in a line."""
    return " ".join(str(error).split()) or type(error).__name__
