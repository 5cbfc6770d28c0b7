"""The arguments of a training run, checked; read from a recipe and flags."""

import logging
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

import torch
from transformers import TrainingArguments

from common.flags import read_values
from common.hardware import multiplies_in_bf16
from trainers.config.argument_checks import check_arguments, check_report_to
from trainers.config.fields import RecipeFields

logger = logging.getLogger(__name__)

USAGE = """Fine-tune an embedder or a reranker.

    accelerate launch scripts/train.py --config configs/reranker.json
    accelerate launch scripts/train.py --config configs/reranker.json --learning_rate 1e-4
"""


@dataclass
class TandemArguments(RecipeFields):
    """All arguments of ``scripts/train.py``, for one process.

    Raises:
        ValueError: A value or combination that cannot work; it begins with the key.
    """

    # The recipe over all defaults, before this machine had a say (``parse_arguments``).
    recipe: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is loaded."""
        check_arguments(self)
        gpu = torch.accelerator.is_available() and not self.use_cpu
        if self.bf16 and not gpu and not multiplies_in_bf16():
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
        # Where steps are skipped, their losses must not enter Trainer's mean.
        self.logging_nan_inf_filter = self.on_bad_loss == "skip"
        if isinstance(self.train_file, str):
            self.train_file = [self.train_file]
        if isinstance(self.eval_file, str):
            self.eval_file = [self.eval_file]
        try:
            super().__post_init__()
        except (ImportError, OSError, TypeError) as error:
            # A missing package (deepspeed, ...) or file; an object with unknown keys.
            raise ValueError(" ".join(str(error).split())) from None
        if self.save_total_limit == 1 and self.metric_for_best_model:
            # The best and the last: Trainer would delete the last before the model is saved.
            self.save_total_limit = 2


OWN_FIELDS = [
    known
    for known in fields(TandemArguments)
    if known.init and known.name not in {other.name for other in fields(TrainingArguments)}
]


def parse_arguments(argv: Sequence[str]) -> TandemArguments:
    """Read ``--config recipe.json`` (or ``.yaml``) and flags, which win.

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
