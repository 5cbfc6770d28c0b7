"""A model whose weights are shared out among processes (FSDP2): how it is cut, and loaded."""

from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel


def layer_classes(backbone: PreTrainedModel) -> list[str]:
    """Names of the classes whose modules are sharded one by one: the backbone's layers.

    They are its ``_no_split_modules``, or, where it names none, what its ``ModuleList`` is made of.
    The class that holds the input embeddings is left out, although BERT's kin name it: unpadding
    looks tokens up without its ``forward``, which is where FSDP would bring its weights together.
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


def shared_out(weights: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole weights, cut as a model has its ``own``: each process takes its part of them.

    Args:
        weights: The same on every process.
        own: The model's state dict, sharded or not.
    """
    return {name: _like(weight, own.get(name)) for name, weight in weights.items()}


def _like(weight: Tensor, own: Tensor | None) -> Tensor:
    if not isinstance(own, DTensor) or isinstance(weight, DTensor):
        return weight
    local = weight.to(own.device)
    # Nothing is sent: every process has read the same file.
    shard: Tensor = distribute_tensor(local, own.device_mesh, own.placements, src_data_rank=None)
    return shard
