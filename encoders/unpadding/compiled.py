"""``torch.compile`` for the layers of a backbone that trains on packed sequences.

Packing is Python on lists and stays outside. Of a layer, attention and dropout masks are operators
(``operators``), and the number of tokens is a symbol, so one graph fits every batch. In evaluation
layers run as they are: each mode would be a graph of its own, and a minute of compiling.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from encoders.unpadding.dropout import Dropout, draw_layer_seed
from encoders.weights.sharding import layer_classes

logger = logging.getLogger(__name__)

# Texts that graphs are made for. Their tokens, 1,037, are a width of no model: equal sizes would
# become one symbol. Inductor sums gradients of more than 4,096 tokens in another way, for which
# there are four times as many texts.
TEXTS, TOKENS = 61, 17
MANY = 4096
# Graphs of layers: each kind with and without gradients, for few tokens and many.
GRAPHS = 64


class CompiledLayers:
    """Compiles the layers of a backbone, from now on, in training.

    Args:
        backbone: Its layers become instances of subclasses whose ``forward`` is compiled.
        backend: As for ``torch.compile``.
        mode: The same.
    """

    def __init__(self, backbone: Any, backend: str, mode: str | None) -> None:
        # Registers them, which takes a while: imported here, as few runs compile.
        from encoders.unpadding import operators  # noqa: F401

        self.made: set[tuple[bool, bool]] = set()
        torch._dynamo.config.cache_size_limit = GRAPHS
        # DDP would cut each layer's graph again; it is called between layers as it is.
        torch._dynamo.config.optimize_ddp = False
        names, kinds = layer_classes(backbone), {}
        for layer in backbone.modules():
            kind = type(layer)
            if kind.__name__ in names:
                if kind not in kinds:
                    compiled = torch.compile(kind.forward, dynamic=True, backend=backend, mode=mode)
                    kinds[kind] = _compiled_kind(kind, compiled)
                layer.__class__ = kinds[kind]
                for site, module in enumerate(layer.modules(), 1):
                    if isinstance(module, Dropout):
                        module.site = site

    def prepare(
        self, run: Callable[..., Any], embedded: Sequence[Tensor], names: Iterable[str]
    ) -> None:
        """Make the graphs of a kind of step before the first one, on texts that never differ.

        A graph may differ in the last bit with the sizes it is made for; a run that is resumed sees
        others first.

        Args:
            run: Runs a packed sequence, given the lengths of texts, embeddings and more inputs.
            embedded: The embeddings of the batch's packed sequences, [1, T, H] each.
            names: Of the other inputs, [1, T].
        """
        gradients, device = torch.is_grad_enabled(), embedded[0].device
        for many in sorted({each.shape[1] > MANY for each in embedded}):
            if (gradients, many) in self.made:
                continue
            self.made.add((gradients, many))
            logger.info("compiling the layers, which takes a while")
            lengths = [TOKENS] * (4 * TEXTS if many else TEXTS)
            given = embedded[0].new_zeros(1, sum(lengths), embedded[0].shape[-1])
            zeros = torch.zeros(given.shape[:2], dtype=torch.long, device=device)
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                given.requires_grad_(gradients)
                states = run(lengths, given, **dict.fromkeys(names, zeros))[0]
                if gradients:
                    torch.autograd.grad(states.sum(), given)


def _compiled_kind(kind: Any, compiled: Callable[..., Any]) -> Any:
    """A subclass of a class of layers: gradient checkpointing stays around its ``forward``."""

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not self.training:
            return kind.forward(self, *args, **kwargs)
        draw_layer_seed()
        return compiled(self, *args, **kwargs)

    return type(kind.__name__, (kind,), {"forward": forward})
