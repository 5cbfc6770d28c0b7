"""Padding-free computation: the package's public interface. Other packages import only from here.

Padding is removed inside the backbone: the texts of a batch are concatenated to packed sequences
(``packing``), which attend within each text (``layout``, ``attention``) and, on a CPU, run on one
core each (``parallel``) with a fast dropout (``dropout``). ``transfer`` keeps the host from waiting
for a GPU. ``forward`` ties these together.
``parts`` switches each of them off by itself.
"""

from encoders.unpadding.dropout import speed_up_dropout
from encoders.unpadding.forward import (
    PackedSequence,
    compile_layers,
    set_attention_dropout,
    unpad_inputs,
)
from encoders.unpadding.packing import cut_by_tokens
from encoders.unpadding.parallel import parallel_map
from encoders.unpadding.parts import Parts, parts
from encoders.unpadding.transfer import HostMask, at_least_one_token, known_mask, to_device

__all__ = [
    "HostMask",
    "PackedSequence",
    "Parts",
    "at_least_one_token",
    "compile_layers",
    "cut_by_tokens",
    "known_mask",
    "parallel_map",
    "parts",
    "set_attention_dropout",
    "speed_up_dropout",
    "to_device",
    "unpad_inputs",
]
