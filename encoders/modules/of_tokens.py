"""The sentence-transformers modules of a multi-vector encoder, which treat each token by itself."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.modules import Dense, Module, Normalize
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from common.prompts import QueryTokens
from encoders.modules.settings import width_of
from encoders.opening.positions import position_limit
from encoders.opening.transformer import Opened
from encoders.unpadding import to_device

# Shapes: N texts, L tokens of the longest, T tokens, W width of their states, H of their vectors.

TOKENS = "token_embeddings"  # the name of token states and vectors among modules


def check_modules(folder: Path, modules: Sequence[Module], opened: Opened) -> None:
    """Refuse what cannot be computed as the folder says.

    Raises:
        ValueError: It names file and module.
    """
    file, width = folder / "modules.json", width_of(opened.backbone)
    for module in modules:
        if isinstance(module, Dense | Normalize):
            names = {module.module_input_name, module.module_output_name} - {TOKENS}
            if names:
                raise ValueError(
                    f"{file}: {type(module).__name__} reads or writes {', '.join(names)}; a "
                    f"multi-vector encoder has modules of {TOKENS} only"
                )
        if isinstance(module, Dense):
            if module.in_features != width:
                raise ValueError(
                    f"{file}: the modules do not fit: Dense takes {module.in_features} dimensions "
                    f"and is given {width}"
                )
            width = module.out_features
    expansion = (opened.by_side or {}).get("query_expansion")
    if expansion is None:
        return
    masks = any(isinstance(module, MultiVectorMask) for module in modules)
    file, limit = folder / "sentence_bert_config.json", position_limit(opened.backbone)
    if not masks or opened.tokenizer.padding_side == "left":
        raise ValueError(
            f"{file}: query_expansion is computed here with a MultiVectorMask, and a tokenizer "
            "that pads on the right, only"
        )
    if limit is not None and expansion["length"] > limit:
        raise ValueError(
            f"{file}: query_expansion: queries get {expansion['length']} tokens, but "
            f"{opened.backbone.config.model_type} takes at most {limit}; give {limit} or less"
        )


def new_projection(folder: Path, modules: Sequence[Module], opened: Opened, width: int) -> Dense:
    """A projection of token states to ``width``, with random weights.

    Raises:
        ValueError: The folder has one.
    """
    if dense := [module for module in modules if isinstance(module, Dense)]:
        raise ValueError(
            f"projection_dim: {folder} has a projection already (to {dense[-1].out_features}); "
            "leave projection_dim out to keep it"
        )
    states = width_of(opened.backbone)
    return Dense(states, width, bias=False, activation_function=None, module_input_name=TOKENS)


def find_query_tokens(
    tokenizer: PreTrainedTokenizerBase, expansion: dict[str, Any] | None
) -> QueryTokens:
    """What becomes of a query's tokens; ``expansion`` is sentence-transformers' setting."""
    if expansion is None:
        return QueryTokens()
    token = expansion["token"] or tokenizer.mask_token or tokenizer.eos_token
    number: Any = tokenizer.convert_tokens_to_ids(token)
    return QueryTokens(expansion["length"], number, expansion["attend"])


def run_on_tokens(modules: Iterable[nn.Module], states: Tensor) -> Tensor:
    """Token states [T, W] to vectors [T, H], in fp32 but for projections under autocast."""
    features: dict[str, Any] = {TOKENS: states[None]}
    for module in modules:
        if not isinstance(module, MultiVectorMask):
            exact = torch.promote_types(features[TOKENS].dtype, torch.float32)
            features = module({TOKENS: features[TOKENS].to(exact)})
    vectors: Tensor = features[TOKENS][0]
    return vectors.to(torch.promote_types(vectors.dtype, torch.float32))


def leave_out(
    modules: Iterable[nn.Module], scored: Tensor, input_ids: Tensor, is_query: Tensor
) -> Tensor:
    """``scored`` [N, L] without what the modules' skiplists name; ``is_query`` is [N]."""
    for mask in modules:
        if isinstance(mask, MultiVectorMask):
            features = {"input_ids": input_ids, "attention_mask": scored}
            sides = [mask(dict(features), task=task) for task in ("query", "document")]
            asked, found = (side["attention_mask"] for side in sides)
            scored = torch.where(is_query[:, None], asked, found)
    return scored


def at_their_places(vectors: Tensor, computed: Tensor, order: Sequence[int]) -> Tensor:
    """Vectors [T, H] to [N, L, H]: those where ``computed`` [N, L] is True, text by text.

    ``computed`` is on the host; ``order`` says in which order the texts follow each other.
    """
    texts, tokens = computed[order].nonzero(as_tuple=True)
    places = torch.tensor(order)[texts] * computed.shape[1] + tokens
    room = vectors.new_zeros(computed.numel(), vectors.shape[1])
    found = room.index_copy(0, to_device(places, vectors.device), vectors)
    return found.view(*computed.shape, -1)
