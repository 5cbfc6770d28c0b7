"""A ``Trainer`` whose checkpoints are whole or not there, and from which a run goes on exactly."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import Trainer
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import TrainOutput

from trainers.checkpoint_files import make_empty, part_of, put_in_place, rotate, write_manifest
from trainers.interruption import Interrupted
from trainers.resuming import STATE_FILE, is_at_end, read_state
from trainers.saving import SavingFailed, saving

if TYPE_CHECKING:
    from trainers.arguments import TandemArguments


class CheckpointTrainer(Trainer):
    """Saves what ``Trainer`` saves, by way of ``trainers.checkpoint_files``."""

    args: "TandemArguments"
    model: nn.Module
    _step_saved = -1  # of the last checkpoint

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """What ``Trainer`` puts into a checkpoint, with a manifest, in place once it is whole."""
        self.store_flos()
        run, name = Path(self.args.output_dir), f"checkpoint-{self.state.global_step}"
        best = run / f"checkpoint-{self.state.best_global_step}"
        if best.name == name or best.is_dir():
            self.state.best_model_checkpoint = str(best)
        part, writes = part_of(run / name), self.args.should_save
        try:
            with saving(name, run):
                if writes:
                    make_empty(part)
            with saving(name, run):
                self._write_checkpoint(str(part))
            with saving(name, run):
                if writes:
                    write_manifest(part)
                    put_in_place(part, run / name)
                    rotate(run, self.args.save_total_limit, kept=(run / name, best))
        except SavingFailed:
            if writes:
                shutil.rmtree(part, ignore_errors=True)
            raise
        self._step_saved = self.state.global_step

    def _write_checkpoint(self, folder: str) -> None:
        """Every process writes what is its own."""
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
        """``Trainer``'s ``trainer_state.json``."""
        with saving(STATE_FILE, Path(self.args.output_dir)):
            super().save_state()

    # Going on from a checkpoint, and stopping at one.

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> TrainOutput:
        """``Trainer``'s, but a run that has taken all its steps takes no more.

        Raises:
            Interrupted: A callback raised it at the beginning of a step; there is a checkpoint.
            SavingFailed: There was no room for a checkpoint.
        """
        if isinstance(resume_from_checkpoint, str):
            state = read_state(Path(resume_from_checkpoint))
            if is_at_end(self.args, state):
                return self._go_to_end(resume_from_checkpoint)
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        except Interrupted:
            if self._step_saved != self.state.global_step:
                self._save_checkpoint(self.model, None)
            raise

    def _go_to_end(self, checkpoint: str) -> TrainOutput:
        """Be as after the last step of a run that was stopped before its model was saved."""
        self.state = self.state.load_from_json(str(Path(checkpoint) / STATE_FILE))
        best = self.state.best_model_checkpoint if self.args.load_best_model_at_end else None
        self._load_from_checkpoint(best or checkpoint)
        return TrainOutput(self.state.global_step, 0.0, {})

    def _load_callback_state(self) -> None:
        # Unlike Trainer's own: early stopping counts on, with the patience of this recipe.
        states: Any = self.state.stateful_callbacks
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ExportableState) and type(callback).__name__ in states:
                vars(callback).update(states[type(callback).__name__]["attributes"])
