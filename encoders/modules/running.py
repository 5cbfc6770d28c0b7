"""Run the sentence-transformers modules after an embedder's backbone."""

from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers.base.modules import Module
from torch import Tensor
from torch.nn import functional as F


def run_modules(
    modules: Sequence[Module],
    states: Tensor,
    lengths: Tensor,
    layers: Sequence[Tensor] | None = None,
    prompt_lengths: Tensor | None = None,
) -> Tensor:
    """The embeddings [N, H] of a packed sequence of texts.

    Args:
        modules: Each of ``PACKABLE``.
        states: Token states [T, W].
        lengths: Tokens of each text, [N].
        layers: States of all layers, [1, T, W] each, if the model outputs them.
        prompt_lengths: Tokens of each text's prompt [N], if pooling excludes prompts.
    """
    if prompt_lengths is not None and len(prompt_lengths.unique()) > 1:
        # Pooling takes one prompt length for all texts: run each length by itself.
        parts, places = [], []
        for length in prompt_lengths.unique():
            chosen = prompt_lengths == length
            tokens = chosen.repeat_interleave(lengths)
            some = None if layers is None else [layer[:, tokens] for layer in layers]
            of_chosen = prompt_lengths[chosen]
            parts.append(run_modules(modules, states[tokens], lengths[chosen], some, of_chosen))
            places.append(chosen.nonzero()[:, 0])
        return torch.cat(parts)[torch.cat(places).argsort()]
    # 16 bits are too few for sums over a text's tokens.
    exact = states.to(torch.promote_types(states.dtype, torch.float32))
    texts = torch.arange(len(lengths), device=lengths.device)
    features: dict[str, Any] = {
        "token_embeddings": exact[None],
        "cu_seq_lens_q": F.pad(lengths.cumsum(0), (1, 0)),
        # Pooling would find it by itself, but wait for the device to learn its size.
        "seq_idx": texts.repeat_interleave(lengths, output_size=len(states))[None],
    }
    if layers is not None:
        features["all_layer_embeddings"] = layers
    if prompt_lengths is not None:
        features["prompt_length"] = int(prompt_lengths[0])
    for module in modules:
        features = module(features)
    embeddings: Tensor = features["sentence_embedding"]
    return embeddings


def run_padded(
    modules: Sequence[Module], inputs: dict[str, Tensor], output: Any, prompt_lengths: Tensor | None
) -> Tensor:
    """The embeddings [N, H] of padded texts, for modules that may look at neighbouring tokens.

    ``inputs`` [N, L] and ``output`` are those of the backbone; others are as in ``run_modules``.
    """
    counts = torch.zeros(len(output[0])) if prompt_lengths is None else prompt_lengths.cpu()
    parts, places = [], []
    for count in counts.unique():  # pooling takes one prompt length for all texts
        at = (counts == count).nonzero()[:, 0]
        features: dict[str, Any] = {name: values[at] for name, values in inputs.items()}
        features |= {"token_embeddings": output.last_hidden_state[at], "prompt_length": int(count)}
        if layers := getattr(output, "hidden_states", None):
            features["all_layer_embeddings"] = [layer[at] for layer in layers]
        for module in modules:
            features = module(features)
        parts.append(features["sentence_embedding"])
        places.append(at)
    return torch.cat(parts)[torch.cat(places).argsort()]
