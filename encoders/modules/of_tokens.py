"""The sentence-transformers modules of a multi-vector encoder, which treat each token by itself."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sentence_transformers.base.modules import Dense, Module, Normalize
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from common.prompts import QueryTokens
from encoders.modules.settings import width_of
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
    masks = [module for module in modules if isinstance(module, MultiVectorMask)]
    if len(masks) > 1 or any(mask.keep_only_token_ids for mask in masks):
        raise ValueError(
            f"{file}: MultiVectorMask: one, without keep_only_token_ids, can be run here; "
            f"there {'is one with' if len(masks) == 1 else 'are several'}"
        )
    for module in modules:
        if isinstance(module, Dense | Normalize):
            names = {module.module_input_name, module.module_output_name}
            if names != {TOKENS}:
                raise ValueError(
                    f"{file}: {type(module).__name__} reads or writes {', '.join(names - {TOKENS})}"
                    f"; a multi-vector encoder has modules of {TOKENS} only"
                )
        if isinstance(module, Dense):
            if module.in_features != width:
                raise ValueError(
                    f"{file}: the modules do not fit: Dense takes {module.in_features} dimensions "
                    f"and is given {width}"
                )
            width = module.out_features
    if (opened.by_side or {}).get("query_expansion") is None:
        return
    if not masks or opened.tokenizer.padding_side == "left":
        raise ValueError(
            f"{folder / 'sentence_bert_config.json'}: query_expansion is computed here with a "
            "MultiVectorMask, and a tokenizer that pads on the right, only"
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
    token = tokenizer.mask_token_id
    if expansion["token"] is not None:
        token = tokenizer.convert_tokens_to_ids(expansion["token"])
    elif token is None:
        token = tokenizer.eos_token_id
    assert isinstance(token, int)
    return QueryTokens(expansion["length"], token, expansion["attend"])


class Skiplist(NamedTuple):
    """Tokens that do not count, such as punctuation.

    Args:
        ids: Of the tokens.
        of_queries: Whether they do not count in queries.
        of_documents: Whether they do not count in documents.
    """

    ids: list[int]
    of_queries: bool = False
    of_documents: bool = True

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, modules: Iterable[nn.Module]) -> "Skiplist":
        """That of a ``MultiVectorMask``; words that are no tokens are left out of it."""
        for mask in modules:
            if isinstance(mask, MultiVectorMask):
                unknown: Any = {None, tokenizer.unk_token_id}
                ids: Any = [
                    tokenizer.convert_tokens_to_ids(word)
                    for word in mask.skiplist_words
                    if word == tokenizer.unk_token
                    or tokenizer.convert_tokens_to_ids(word) not in unknown
                ]
                tasks = mask.skiplist_tasks
                return cls(ids, "query" in tasks, "document" in tasks)
        return cls([])

    def leave_out(self, scored: Tensor, input_ids: Tensor, is_query: Tensor) -> Tensor:
        """``scored`` [N, L] without these tokens; it and ``is_query`` [N] are on the host."""
        counts = to_device(scored, input_ids.device)
        if not self.ids:
            return counts
        sides = torch.where(is_query, self.of_queries, self.of_documents)[:, None]
        skipped = torch.isin(input_ids, torch.tensor(self.ids, device=input_ids.device))
        return counts & ~(skipped & to_device(sides, input_ids.device))


def run_on_tokens(modules: Iterable[Module], states: Tensor) -> Tensor:
    """Token states [T, W] to vectors [T, H], in fp32 but for projections under autocast."""
    features: dict[str, Any] = {TOKENS: states[None]}
    for module in modules:
        if not isinstance(module, MultiVectorMask):  # that says which of them count
            exact = torch.promote_types(features[TOKENS].dtype, torch.float32)
            features = module({TOKENS: features[TOKENS].to(exact)})
    vectors: Tensor = features[TOKENS][0]
    return vectors.to(torch.promote_types(vectors.dtype, torch.float32))


def at_their_places(vectors: Tensor, computed: Tensor, order: Sequence[int]) -> Tensor:
    """Vectors [T, H] to [N, L, H]: those where ``computed`` [N, L] is True, text by text.

    ``computed`` is on the host; ``order`` says in which order the texts follow each other.
    """
    texts, tokens = computed[order].nonzero(as_tuple=True)
    places = torch.tensor(order)[texts] * computed.shape[1] + tokens
    room = vectors.new_zeros(computed.numel(), vectors.shape[1])
    found = room.index_copy(0, to_device(places, vectors.device), vectors)
    return found.view(*computed.shape, -1)
