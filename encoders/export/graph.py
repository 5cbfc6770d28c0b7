"""Write a model as an ONNX graph, in fp32 or with 8-bit weights."""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.sentence_transformer.modules import WeightedLayerPooling
from torch import Tensor, nn

from common.prompts import PADDED
from encoders.backbone import Encoder
from encoders.export.onnx_backbone import ONNX_FILE
from encoders.opening.positions import position_limit
from encoders.opening.transformer import OUTPUTS

# Shapes: B texts, L tokens of the longest, H width of a state.

EXAMPLE = ["a text", "another text, which is longer"]


class Graph(nn.Module):
    """The backbone with positional inputs and a single output, as the ONNX exporter needs it.

    The output is "last_hidden_state" [B, L, H] or "logits" [B, 1].
    """

    def __init__(self, backbone: nn.Module, inputs: list[str], output: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.inputs = inputs
        self.output = output

    def forward(self, *tokens: Tensor) -> Tensor:
        """The output; ``tokens`` are the ``inputs``, [B, L] each."""
        found: Tensor = self.backbone(**dict(zip(self.inputs, tokens, strict=True)))[self.output]
        return found


def export_onnx(encoder: Encoder, folder: Path, int8: bool = False) -> None:
    """Write a folder like ``save_pretrained``'s, with ``onnx/model.onnx`` in place of weights.

    The graph is the backbone; pooling, projection and normalisation stay outside.

    Args:
        encoder: Opened with ``unpad_inputs=False``, on the CPU.
        folder: Where to; must not hold a model.
        int8: Quantise linear layers and word embeddings to 8 bits, and token states before each
            layer (see ``int8``).

    Raises:
        ValueError: The graph would not have all that the model needs, or torch cannot write it.
    """
    layers = any(isinstance(module, WeightedLayerPooling) for module in encoder.modules())
    if layers and encoder.config.output_hidden_states:
        raise ValueError(
            "format: a graph gives the states of the last layer, but the model's "
            "WeightedLayerPooling needs those of all layers; take fp16 or bf16"
        )
    encoder.tokenizer.padding_side = "right"  # the graph counts positions from the left
    if limit := position_limit(encoder.backbone):
        # RoBERTa and similar models have fewer than they state, which a graph does not show.
        encoder.config.max_position_embeddings = limit
    encoder.save_pretrained(folder)
    for weights in folder.glob("model*.safetensors*"):  # not those of a projection
        weights.unlink()
    file = folder / ONNX_FILE
    file.parent.mkdir()
    with _errors_only():
        if not int8:
            _write_graph(encoder, file)
            return
        from encoders.export.int8 import quantize

        with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
            full = Path(scratch) / "full.onnx"
            _write_graph(encoder, full)
            quantize(full, file)


@contextmanager
def _errors_only() -> Iterator[None]:
    """Silence the exporter, which logs a line per product and per package it does without."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _write_graph(encoder: Encoder, file: Path) -> None:
    backbone: Any = encoder.backbone.eval()
    # Other attention implementations add a check for fully masked rows to every score.
    backbone.set_attn_implementation("eager")
    output = OUTPUTS[encoder.backbone_task]
    tokens = encoder.tokenizer(EXAMPLE, padding=True, **PADDED)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=encoder.max_length)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                Graph(backbone, list(tokens), output),
                tuple(tokens.values()),
                input_names=list(tokens),
                output_names=[output],
                dynamic_shapes={"tokens": tuple({0: batch, 1: length} for _ in tokens)},
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # torch's exceptions share no base class
        raise ValueError(
            f"format: torch cannot write {encoder.config.model_type} as a graph "
            f"({type(error).__name__}); take fp16 or bf16"
        ) from error
    assert program is not None
    program.save(file)
