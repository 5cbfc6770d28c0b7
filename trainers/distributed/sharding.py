"""FSDP2: check the launch, keep sums in fp32, unshard a model for evaluation."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.fsdp import FSDPModule

from trainers.config.arguments import TandemArguments

LAUNCH_FILE = "configs/accelerate/fsdp2.yaml"
LAYERS = "FSDP_TRANSFORMER_CLS_TO_WRAP"
# accelerate's types of processes without GPUs.
NOT_SHARDING: tuple[Any, ...] = (DistributedType.NO, DistributedType.MULTI_CPU)
# Environment set by accelerate launch: the value a run needs, accelerate's default, the reason.
NEEDED = {
    "FSDP_VERSION": ("2", "1", "FSDP 1 is not supported"),
    "FSDP_AUTO_WRAP_POLICY": (
        "TRANSFORMER_BASED_WRAP",
        "NO_WRAP",
        "a model is sharded layer by layer",
    ),
    "FSDP_CPU_RAM_EFFICIENT_LOADING": ("false", "false", "every process reads the model itself"),
}


def launches_fsdp() -> bool:
    """Whether accelerate was launched with FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def check_sharding(args: TandemArguments) -> None:
    """Refuse FSDP where accelerate would silently not shard, or in a mode that is not tested.

    Raises:
        ValueError: There is no GPU, or a setting is not supported.
    """
    if not launches_fsdp():
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
    if args.on_worse != "warn" and args.merge_with_base != "auto":
        raise ValueError(
            f"on_worse: {args.on_worse} needs a comparison with the base, which with FSDP only "
            "merge_with_base auto makes; give that, or leave on_worse out"
        )
    launched = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no"
    if (args.torch_compile or launched) and args.unpad_inputs:
        raise ValueError(
            "torch_compile: does not go with FSDP and unpad_inputs; leave torch_compile out, or "
            "give unpad_inputs false"
        )


def check_layers(model: nn.Module) -> None:
    """Refuse classes to shard that are not the layers of the model.

    Raises:
        ValueError: It names the layers' class.
    """
    given = os.environ.get(LAYERS)
    if given is None or not launches_fsdp():
        return
    layers: Any = model._no_split_modules
    for name in given.split(","):
        if name not in layers:
            raise ValueError(
                f"fsdp_transformer_layer_cls_to_wrap: {name} is not a layer of this model; leave "
                f"it out of the launch file, or give {','.join(layers)}"
            )


def keep_fp32_outside(plugin: Any) -> None:
    """Compute in bf16 or fp16 only inside the model, as in a run without FSDP.

    By default accelerate also sums gradients, embeddings and scores in it.

    Args:
        plugin: accelerate's ``FullyShardedDataParallelPlugin``.
    """
    if plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = replace(
            plugin.mixed_precision_policy, reduce_dtype=torch.float32, output_dtype=None
        )


@contextmanager
def unsharded(model: nn.Module, reshard_after_forward: bool) -> Iterator[None]:
    """Unshard the model inside the block, so that each process can run it independently.

    A forward pass of a sharded model is collective, and in an evaluation each process has another
    number of texts. A model that is not sharded is left as it is.

    Args:
        model: The unwrapped model of the run.
        reshard_after_forward: Whether training reshards each layer after its forward pass.
    """
    shards = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in shards:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in shards:
            module.reshard()
            # As FSDP does by default, the root keeps its weights until the backward pass.
            module.set_reshard_after_forward(
                reshard_after_forward and module is not model, recurse=False
            )
