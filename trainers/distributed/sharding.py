"""FSDP2: a model whose weights are shared out among the processes of a run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.fsdp import FSDPModule
from transformers import TrainingArguments

LAUNCH_FILE = "configs/accelerate/fsdp2.yaml"
LAYERS = "FSDP_TRANSFORMER_CLS_TO_WRAP"
# How accelerate calls processes without GPUs.
NOT_SHARDING: tuple[Any, ...] = (DistributedType.NO, DistributedType.MULTI_CPU)
# What accelerate launch makes of a launch file: what a run needs, what accelerate takes where
# nothing is said, and the reason.
NEEDED = {
    "FSDP_VERSION": ("2", "1", "FSDP 1 is not supported"),
    "FSDP_AUTO_WRAP_POLICY": (
        "TRANSFORMER_BASED_WRAP",
        "NO_WRAP",
        "a model is sharded layer by layer",
    ),
    "FSDP_CPU_RAM_EFFICIENT_LOADING": ("false", "false", "every process reads the model itself"),
}


def check_sharding(args: TrainingArguments) -> None:
    """Refuse FSDP where accelerate would quietly do without it, or otherwise than is tested.

    Raises:
        ValueError: There is no GPU, or a setting is not supported.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return
    state = args.distributed_state
    if state is None or state.distributed_type in NOT_SHARDING:
        raise ValueError(
            "FSDP: shards a model over GPUs; on a CPU accelerate would run DDP instead, with the "
            "whole model in every process; launch with configs/accelerate/two_cpu_processes.yaml"
        )
    for name, (needed, default, reason) in NEEDED.items():
        given = os.environ.get(name, default)
        if given.lower() != needed.lower():
            raise ValueError(
                f"{name.lower()}: {given}: {reason}; give {needed} in the launch file, as "
                f"{LAUNCH_FILE} does"
            )


def check_layers(model: nn.Module) -> None:
    """Refuse classes to shard that are not the layers of the model.

    Raises:
        ValueError: It names the layers' class.
    """
    given = os.environ.get(LAYERS)
    if given is None or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return
    layers: Any = model._no_split_modules
    for name in given.split(","):
        if name not in layers:
            raise ValueError(
                f"fsdp_transformer_layer_cls_to_wrap: {name} is no layer of this model; leave it "
                f"out of the launch file, or give {','.join(layers)}"
            )


def keep_fp32_outside(plugin: Any) -> None:
    """Let only the computation be in bf16 or fp16, as in a run without FSDP.

    accelerate would also sum gradients in it, and round embeddings and scores to it.

    Args:
        plugin: accelerate's ``FullyShardedDataParallelPlugin``.
    """
    if plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = replace(
            plugin.mixed_precision_policy, reduce_dtype=torch.float32, output_dtype=None
        )


@contextmanager
def whole(model: nn.Module, reshard_after_forward: bool) -> Iterator[nn.Module]:
    """The model with all of its weights on every process, so that each may run it when it likes.

    A forward of a sharded model is one of all processes; those of an evaluation are as many as a
    process has texts. A model that is not sharded is left as it is.

    Args:
        model: As it is trained.
        reshard_after_forward: Whether layers let go of each other's weights in training.
    """
    shards = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in shards:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield model
    finally:
        for module in shards:
            module.reshard()
            # The outermost keeps its own until the backward, as FSDP has it by default.
            module.set_reshard_after_forward(
                reshard_after_forward and module is not model, recurse=False
            )
