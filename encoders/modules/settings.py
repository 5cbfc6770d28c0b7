"""Settings of a folder and of a run: prompts, and the pooling, projection, normalisation."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.modules import Dense, Module, Normalize
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput

from encoders.modules.files import PACKABLE, pooling_modes
from encoders.modules.running import run_modules, run_padded

logger = logging.getLogger(__name__)

# Our name of a pooling -> sentence-transformers'.
POOLINGS = {
    name.removesuffix("token"): name
    for name in ("cls", "mean", "lasttoken", "max", "weightedmean", "mean_sqrt_len_tokens")
}
# Prompt names that sentence-transformers uses for documents; the first that exists wins.
DOCUMENT_PROMPTS = ("document", "passage", "corpus")


def width_of(backbone: Any) -> int:
    """The width of token states (``hidden_size``)."""
    config = backbone.config
    text = config.get_text_config()
    # EmbeddingGemma 2 projects its states to a width of its own.
    own = getattr(text, "embedding_dim", None) or getattr(config, "hidden_size", None)
    return int(own or text.hidden_size)


def output_width(modules: nn.ModuleList, width: int) -> int:
    """Dimensions that modules make of token states of a width; tried, so that they surely fit.

    Raises:
        ValueError: They do not fit together.
    """
    modules.eval()  # no random numbers are drawn
    chain: list[Any] = list(modules)
    try:
        with torch.no_grad():
            if all(type(module) in PACKABLE for module in chain):
                found = run_modules(chain, torch.zeros(3, width), torch.tensor([1, 2]))
            else:
                tokens = dict.fromkeys(("input_ids", "attention_mask"), torch.ones(1, 3).long())
                states: Any = torch.zeros(1, 3, width)
                found = run_padded(chain, tokens, BaseModelOutput(states), None)
    except (RuntimeError, KeyError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"modules.json: the modules {', '.join(type(m).__name__ for m in chain)} do not fit "
            f"behind a backbone of width {width}: {reason}"
        ) from error
    modules.train()
    return int(found.shape[1])


def is_unit_length(module: nn.Module) -> bool:
    """Whether a module normalises embeddings."""
    return isinstance(module, Normalize) and module.module_output_name == "sentence_embedding"


def warn_of_unknown_similarity(
    name: str | Path, settings: dict[str, Any], modules: Sequence[nn.Module]
) -> None:
    """Warn where a folder names a similarity that neither training nor search computes here."""
    similarity = settings.get("similarity_fn_name") or "cosine"
    # Of unit vectors, the nearest are those of the highest cosine.
    alike = ["euclidean"] if is_unit_length(modules[-1]) else []
    if similarity not in ("cosine", "dot", *alike):
        logger.warning(
            "%s is made for the similarity %r, which its saved folder keeps; training, evaluation, "
            "mining and search here compare by the cosine",
            name,
            similarity,
        )


def read_prompts(settings: dict[str, Any]) -> dict[str, str]:
    """A folder's prompts; one for passages becomes the one for documents."""
    stated = settings.get("prompts") or {}
    prompts = {name: text for name, text in stated.items() if text}
    name = next((name for name in DOCUMENT_PROMPTS if name in stated), "document")
    if name != "document" and name in prompts:
        logger.info("the prompt %r (%r) is put before documents", name, prompts[name])
        prompts["document"] = prompts[name]
    return prompts


def prompt_lengths(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Collection[str],
    input_ids: Tensor,
    attention_mask: Tensor,
) -> Tensor:
    """Tokens of each text's prompt, [N]; 0 where it has none.

    Texts already have their prompts in front, so a prompt is recognised by its tokens; a text that
    happens to begin with the same words counts as having it. A space at the prompt's end may have
    been merged into the next word's token; it counts anyway, as in sentence-transformers.

    Args:
        tokenizer: The model's.
        prompts: All that may be in front of a text.
        input_ids: [N, L], as ``attention_mask``.
    """
    known: list[list[int]] = []
    for prompt in prompts:
        ids = tokenizer(prompt)["input_ids"]
        known.append(ids[:-1] if ids[-1] in tokenizer.all_special_ids else ids)
    known.sort(key=len, reverse=True)
    found = []
    for ids, mask in zip(input_ids.tolist(), attention_mask.bool().tolist(), strict=True):
        text = [token for token, real in zip(ids, mask, strict=True) if real]
        matches = [own for own in known if text[: len(own)] == own]
        spaces = [own for own in known if _ends_in_a_space(tokenizer, own, text)]
        found.append(len((matches or spaces or [[]])[0]))
    return torch.tensor(found, device=input_ids.device)


def _ends_in_a_space(tokenizer: PreTrainedTokenizerBase, own: list[int], text: list[int]) -> bool:
    bare = not str(tokenizer.decode(own[-1:])).strip()
    return bare and len(own) > 1 and text[: len(own) - 1] == own[:-1]


def change_modules(
    modules: list[Module],
    folder: Path,
    pooling: str | None,
    projection_dim: int | None,
    normalize: bool | None,
) -> list[Module]:
    """A folder's modules with a run's settings applied; None keeps what is there."""
    if pooling is not None:
        if pooling not in POOLINGS:
            raise ValueError(f"pooling: {pooling!r} is not one of {', '.join(POOLINGS)}")
        own = [module for module in modules if isinstance(module, Pooling)]
        if len(own) > 1 or len(pooling_modes(own[0])) > 1:
            raise ValueError(
                f"pooling: {folder} joins several poolings, which {pooling!r} cannot replace; "
                "leave it out"
            )
        own[0].pooling_mode = POOLINGS[pooling]
    unit = is_unit_length(modules[-1])
    rest = modules[:-1] if unit else modules
    if projection_dim is not None:
        if dense := [module for module in modules if isinstance(module, Dense)]:
            raise ValueError(
                f"projection_dim: {folder} has a projection already (to {dense[-1].out_features}); "
                "leave projection_dim out to keep it"
            )
        width = next(m for m in reversed(rest) if hasattr(m, "get_embedding_dimension"))
        rest = [
            *rest,
            Dense(width.get_embedding_dimension(), projection_dim, activation_function=None),
        ]
    return [*rest, Normalize()] if (unit if normalize is None else normalize) else rest
