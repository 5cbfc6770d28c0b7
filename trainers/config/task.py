"""Arguments with their objective: checked against each other, and the loss they define."""

from dataclasses import dataclass
from inspect import signature
from typing import get_type_hints

from torch import nn

from common.typed_values import typed
from encoders.kinds import KINDS
from losses import MatryoshkaLoss
from trainers.config.arguments import TandemArguments
from trainers.objectives import OBJECTIVES, Objective
from trainers.steps import contrastive_step

# Settings of models that retrieve, and of models that rerank (``ModelKind.role``).
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


@dataclass(frozen=True)
class Task:
    """What a model is trained for: of a run, or of one of its sources.

    Args:
        args: The run's arguments, or a source's.
        objective: The row of ``OBJECTIVES`` that ``args.objective`` names.
    """

    args: TandemArguments
    objective: Objective

    def build_loss(self) -> nn.Module:
        """The objective's loss with the arguments' ``loss_args``."""
        loss = self.objective.loss(**self.args.loss_args)
        if self.args.matryoshka_dims is None:
            return loss
        return MatryoshkaLoss(loss, self.args.matryoshka_dims, self.args.matryoshka_weights)


def find_objective(args: TandemArguments) -> Objective:
    """The objective that the arguments name; ``loss_args`` are converted to its types.

    Raises:
        ValueError: It does not exist, or a setting does not go with it; begins with the key.
    """
    if args.objective not in OBJECTIVES:
        raise ValueError(f"objective: {args.objective!r} is not one of {', '.join(OBJECTIVES)}")
    objective = OBJECTIVES[args.objective]
    contrastive = objective.step is contrastive_step
    if args.gradient_cache_chunk_size is not None and not contrastive:
        raise ValueError(
            "gradient_cache_chunk_size: is for objective contrastive; for others accumulate "
            "batches (gradient_accumulation_steps), which gives the same gradients"
        )
    alone = args.per_device_train_batch_size == args.train_group_size == 1
    if contrastive and alone:
        raise ValueError(
            "per_device_train_batch_size: 1 with train_group_size 1 leaves contrastive without any "
            "negative; raise one of them"
        )
    smallest = 2 if objective.needs_negatives or objective.needs_scores else 1
    if args.train_group_size < smallest:
        raise ValueError(
            f"train_group_size: must be at least {smallest} for objective {args.objective}, got "
            f"{args.train_group_size}"
        )
    _check_loss_args(args, objective)
    return objective


def check_kind(task: Task) -> None:
    """Refuse settings of another kind of model.

    Raises:
        ValueError: It begins with the key.
    """
    for role, names in ONLY_FOR.items():
        for name in names:
            given = getattr(task.args, name) is not None
            if given and role != KINDS[task.objective.model].role:
                raise ValueError(
                    f"{name}: is for the {role}, but objective {task.args.objective} trains the "
                    f"{task.objective.model}; leave it out"
                )


def _check_loss_args(args: TandemArguments, objective: Objective) -> None:
    loss = objective.loss
    allowed = [name for name in signature(loss).parameters if name not in {"args", "kwargs"}]
    for name in args.loss_args:
        if name not in allowed:
            takes = ", ".join(allowed) or "no arguments"
            raise ValueError(f"loss_args: {name}: {args.objective} takes {takes}")
        hint = get_type_hints(loss.__init__)[name]
        args.loss_args[name] = typed(f"loss_args: {name}", args.loss_args[name], hint)
    try:
        loss(**args.loss_args)
    except (TypeError, ValueError) as error:
        raise ValueError(f"loss_args: {error}") from None
