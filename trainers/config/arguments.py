"""The arguments of a training run: ``TrainingArguments`` and what this project adds to them."""

import logging
import os
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from inspect import signature
from typing import Any, Literal, get_type_hints

import torch
from torch import nn
from transformers import TrainingArguments

from common.flags import option, read_values
from common.typed_values import typed
from losses import MatryoshkaLoss
from trainers.base import LossTrainer
from trainers.config.combinations import (
    check_evaluation,
    check_fixed,
    check_lora,
    check_matryoshka,
)
from trainers.config.fields import DataArguments, ModelArguments
from trainers.config.limits import check_limits, check_report_to
from trainers.config.sources import Source, build_sources
from trainers.multi_source import MultiSourceTrainer
from trainers.objectives import OBJECTIVES, Objective

logger = logging.getLogger(__name__)

USAGE = """Fine-tune an embedder or a reranker.

    accelerate launch scripts/train.py --config configs/reranker.json
    accelerate launch scripts/train.py --config configs/reranker.json --learning_rate 1e-4
"""

# Settings that only one kind of model has.
ONLY_FOR = {
    "embedder": (
        "eval_corpus",
        "matryoshka_dims",
        "matryoshka_weights",
        "pooling",
        "projection_dim",
        "normalize",
        "query_max_length",
        "document_max_length",
        "append_eos_token",
    ),
    "reranker": ("max_length",),
}


@dataclass
class TandemArguments(ModelArguments, DataArguments, TrainingArguments):
    """All arguments of ``scripts/train.py``; names of ``TrainingArguments`` as they are there."""

    objective: str = option("", "A row of the table in trainers/objectives.py. Required.")
    loss_args: dict[str, Any] = option({}, 'Arguments of the loss: {"temperature": 0.02}.')
    matryoshka_dims: list[int] | None = option(
        None, "Embedder: lengths of prefixes that are to be embeddings too; the loss is summed."
    )
    matryoshka_weights: list[float] | None = option(
        None, "The weight of each of matryoshka_dims in the sum; null: 1 each."
    )
    gradient_cache_chunk_size: int | None = option(
        None, "contrastive: texts embedded at once, for batches that do not fit; same gradients."
    )
    negatives_across_processes: bool = option(
        True, "contrastive: the documents of all processes are negatives, with their gradients."
    )
    on_bad_loss: Literal["error", "skip"] = option(
        "error", "Stop where a loss or gradient is NaN or infinite, or skip such steps, counted."
    )
    overwrite_output_dir: bool = option(False, "Delete the run that output_dir holds, and train.")

    early_stopping_patience: int | None = option(
        None, "Stop after so many evaluations that are no better than the best."
    )

    # Other defaults than TrainingArguments has:
    output_dir: str = option("", "Where the run and its model go. Required.")
    resume_from_checkpoint: str | bool | None = option(  # type: ignore[assignment]
        None, "true: the last checkpoint in output_dir; or the path of one."
    )
    warmup_steps: float = option(0.1, "Linear warm-up; below 1: a share of all steps.")
    logging_steps: float = option(10, "Steps between two log lines; below 1: a share of all.")
    remove_unused_columns: bool = option(False, "Fixed: the collators read the text columns.")
    logging_nan_inf_filter: bool = option(False, "Fixed: on_bad_loss says what becomes of NaN.")
    prediction_loss_only: bool = option(True, "Fixed: metrics do not come from logits.")
    ddp_find_unused_parameters: bool | None = option(False, "Every trained weight is used.")
    hub_strategy: str = option("end", "Fixed: push the whole folder when training has ended.")

    # What the run was given over all defaults, before this machine had a say (``parse_arguments``).
    recipe: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is loaded."""
        self._check_required()
        self.check_objective()
        self._check_combinations()
        gpu = torch.accelerator.is_available() and not self.use_cpu
        if self.bf16 and not gpu and not _cpu_has_bf16():
            logger.warning(
                "bf16 is off for this run: this CPU has no bf16 instructions (AVX512-BF16 or AMX), "
                "and emulating them is many times slower than fp32"
            )
            self.bf16 = False
        if not torch.accelerator.is_available():
            self.use_cpu = True  # TrainingArguments refuses bf16 on a CPU that was not asked for.
        if self.fp16 and not gpu:
            raise ValueError("fp16: needs a GPU; leave it out, or give bf16 on a CPU that has it")
        if self.report_to is None:
            self.report_to = "none"
        check_report_to(self.report_to)
        # Where steps are skipped, the mean of all losses is to be one of the others.
        self.logging_nan_inf_filter = self.on_bad_loss == "skip"
        if isinstance(self.train_file, str):
            self.train_file = [self.train_file]
        if isinstance(self.eval_file, str):
            self.eval_file = [self.eval_file]
        try:
            super().__post_init__()
        except (ImportError, OSError, TypeError) as error:
            # A package that is not there (deepspeed, ...), or a file; an object with unknown keys.
            raise ValueError(" ".join(str(error).split())) from None
        if self.save_total_limit == 1 and self.metric_for_best_model:
            # The best and the last: Trainer would delete the last before the model is saved.
            self.save_total_limit = 2
        build_sources(self)  # refuses what cannot be

    def build_loss(self) -> nn.Module:
        """The objective's loss with the recipe's arguments."""
        loss = self.objective_spec.loss(**self.loss_args)
        if self.matryoshka_dims is None:
            return loss
        return MatryoshkaLoss(loss, self.matryoshka_dims, self.matryoshka_weights)

    @property
    def objective_spec(self) -> Objective:
        """The objective's row."""
        return OBJECTIVES[self.objective]

    @property
    def trainer(self) -> type[LossTrainer]:
        """The objective's trainer, or that of sources which may have several."""
        several = self.train_files and self.batches_from == "one_source"
        return MultiSourceTrainer if several else self.objective_spec.trainer

    def build_sources(self) -> list[Source]:
        """The sources of ``train_files``; none for a run with one ``train_file``."""
        return build_sources(self)

    def _check_required(self) -> None:
        if self.train_files is not None and self.train_file:
            raise ValueError(
                "train_files: stands beside train_file; give one of them (a flag --train_files "
                "null takes it out of the recipe)"
            )
        if self.train_files == []:
            raise ValueError("train_files: is empty; give sources, or train_file")
        for name in ("objective", "model_name_or_path", "train_file", "output_dir"):
            if not getattr(self, name) and not (name == "train_file" and self.train_files):
                other = " (or train_files)" if name == "train_file" else ""
                raise ValueError(
                    f"{name}: is missing; add it{other} to the recipe or give --{name}"
                )
        if self.train_files is None and self.batches_from != "one_source":
            raise ValueError("batches_from: is for train_files; leave it out")

    def check_objective(self) -> None:
        """Refuse an objective that does not exist, and what does not go with it.

        Raises:
            ValueError: It begins with the key.
        """
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective: {self.objective!r} is not one of {', '.join(OBJECTIVES)}")
        alone = self.per_device_train_batch_size == self.train_group_size == 1
        if self.objective == "contrastive" and alone:
            raise ValueError(
                "per_device_train_batch_size: 1 with train_group_size 1 leaves contrastive without "
                "any negative; raise one of them"
            )
        row = self.objective_spec
        smallest = 2 if row.needs_negatives or row.needs_scores else 1
        if self.train_group_size < smallest:
            raise ValueError(
                f"train_group_size: must be at least {smallest} for objective {self.objective}, "
                f"got {self.train_group_size}"
            )
        if self.label_map == {}:
            raise ValueError('label_map: is empty; give {"label": relevance, ...} or leave it out')
        bounds = self.label_range
        if bounds is not None and (len(bounds) != 2 or not bounds[0] < bounds[1]):
            raise ValueError(f"label_range: must be [lowest, highest], got {bounds}")
        self._check_loss_args()

    def _check_combinations(self) -> None:
        kind = self.objective_spec.model
        for owner, names in ONLY_FOR.items():
            for name in names:
                if owner != kind and getattr(self, name) is not None:
                    raise ValueError(
                        f"{name}: is for the {owner}, but objective {self.objective} trains the "
                        f"{kind}; leave it out"
                    )
        check_limits(vars(self))
        if self.gradient_cache_chunk_size is not None and self.objective != "contrastive":
            raise ValueError(
                "gradient_cache_chunk_size: is for objective contrastive; for others accumulate "
                "batches (gradient_accumulation_steps), which gives the same gradients"
            )
        check_evaluation(self)
        check_matryoshka(self)
        check_lora(self)
        check_fixed(self)
        if self.torch_compile and self.unpad_inputs:
            raise ValueError(
                "torch_compile: does not go with unpad_inputs, whose shapes differ in every batch; "
                "give unpad_inputs false, or leave torch_compile out"
            )
        if self.fsdp:
            raise ValueError(
                "fsdp: is asked for where a run is launched (accelerate launch --config_file "
                "configs/accelerate/fsdp2.yaml); leave it out"
            )

    def _check_loss_args(self) -> None:
        loss = self.objective_spec.loss
        allowed = [name for name in signature(loss).parameters if name not in {"args", "kwargs"}]
        for name in self.loss_args:
            if name not in allowed:
                takes = ", ".join(allowed) or "no arguments"
                raise ValueError(f"loss_args: {name}: {self.objective} takes {takes}")
            hint = get_type_hints(loss.__init__)[name]
            self.loss_args[name] = typed(f"loss_args: {name}", self.loss_args[name], hint)
        try:
            loss(**self.loss_args)
        except (TypeError, ValueError) as error:
            raise ValueError(f"loss_args: {error}") from None


OWN_FIELDS = [
    known
    for known in fields(TandemArguments)
    if known.init and known.name not in {other.name for other in fields(TrainingArguments)}
]


def parse_arguments(argv: Sequence[str] | None = None) -> TandemArguments:
    """``--config recipe.json`` (or ``.yaml``), then flags, which win.

    Raises:
        ValueError: A key, value or combination that cannot be, named in one sentence.
        SystemExit: After ``--help``.
    """
    values = read_values(TandemArguments, argv, USAGE)
    arguments = TandemArguments(**values)
    arguments.recipe = defaults() | values
    return arguments


def defaults() -> dict[str, Any]:
    """Every key with its default, this project's own keys first."""
    values = {}
    for known in sorted(fields(TandemArguments), key=lambda known: known not in OWN_FIELDS):
        if known.init:
            made = None if known.default_factory is MISSING else known.default_factory()
            value = made if known.default is MISSING else known.default
            values[known.name] = getattr(value, "value", value)
    return values


def _cpu_has_bf16() -> bool:
    """As ``common.hardware.multiplies_in_bf16``, which this folder may not import."""
    without = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"}
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() not in without
    return allowed and torch.cpu._is_avx512_bf16_supported()
