"""FSDP2: which modules are sharded, and how full weights are loaded into shards."""

from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel


def layer_classes(backbone: PreTrainedModel) -> list[str]:
    """Names of the classes to wrap with FSDP: the backbone's layers.

    These are its ``_no_split_modules``, or else the classes in its ``ModuleList``. The class with
    the input embeddings is left out, although BERT and similar models name it: unpadding looks up
    tokens without calling its ``forward``, where FSDP would gather its weights.
    """
    embeddings = backbone.get_input_embeddings()
    named = {
        type(module).__name__: module
        for module in backbone.modules()
        if type(module).__name__ in (backbone._no_split_modules or ())
    } or {
        type(layer).__name__: layer
        for layers in backbone.modules()
        if isinstance(layers, nn.ModuleList)
        for layer in layers
    }
    return sorted(
        name
        for name, module in named.items()
        if all(part is not embeddings for part in module.modules())
    )


def shard_like(weights: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Shard full weights as a model's ``own`` are sharded; each process keeps its part.

    Args:
        weights: The same on every process.
        own: The model's state dict, sharded or not.
    """
    placed = dict(weights)
    for name, weight in weights.items():
        like = own.get(name)
        if isinstance(like, DTensor) and not isinstance(weight, DTensor):
            # No communication: every process has read the same file.
            placed[name] = distribute_tensor(
                weight.to(like.device), like.device_mesh, like.placements, src_data_rank=None
            )
    return placed
