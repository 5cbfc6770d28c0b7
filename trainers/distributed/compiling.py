"""``torch_compile``: keep accelerate from compiling a model that runs unpadded, and do it right."""

from typing import Any

from accelerate.utils import DynamoBackend
from torch import nn

from encoders import unpadding


def compile_unpadded(model: nn.Module, state: Any) -> None:
    """Compile the layers of a model that runs unpadded, if accelerate would compile the whole.

    The whole packs its texts by Python lists, where each batch would be a graph of its own.

    Args:
        model: Not wrapped yet.
        state: accelerate's ``AcceleratorState``.
    """
    plugin = state.dynamo_plugin
    if plugin.backend != DynamoBackend.NO and getattr(model, "unpadded", False):
        backbone: Any = model.backbone
        unpadding.compile_layers(backbone, plugin.backend.value.lower(), plugin.mode)
        plugin.backend = DynamoBackend.NO
