"""Encode texts for dot-product search, with a cache on disk, sharing the work among processes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from common.hardware import bf16_is_fast
from common.prompts import Side
from common.similarity import for_dot_product
from common.text_digest import Keys, combined_digest, text_keys
from encoders import Embedder
from encoders.backbone import Encoder
from mining.cache.vectors import VectorCache

# Letters: N texts, H dimensions.

# A block is encoded by one process and written at once: a killed process loses at most one. Blocks
# depend on the order of the texts alone, so that any number of processes makes the same batches and
# therefore bit-identical vectors.
BLOCK = 1024

Read = Callable[[int, int], list[str]]  # texts [start, stop)


@dataclass(frozen=True)
class EncodingSettings:
    """How the queries or the documents are encoded, or pairs are scored.

    Args:
        max_length: Texts (pairs) are truncated to so many tokens; None: the model's limit.
        tokens_per_batch: Approximate number of tokens per forward; None: what suits the device.
        bf16: Compute in bf16 where the hardware supports it.
        show_progress: Show a progress bar.
    """

    max_length: int | None = None
    tokens_per_batch: int | None = None
    bf16: bool = False
    show_progress: bool = False


def cache_key(model: Encoder, digest: str, encoding: EncodingSettings) -> str:
    """Name a cache's folder by a digest of the model and all else that decides its results.

    Prompts are no part of it: texts come to a cache behind them.
    """
    bf16 = encoding.bf16 and bf16_is_fast(model.device)
    lengths = [model.find_length(side, encoding.max_length) for side in get_args(Side)]
    limit = " ".join(map(str, dict.fromkeys(lengths)))
    return combined_digest([digest, limit, "bf16" if bf16 else "fp32"])


@dataclass(frozen=True)
class Vectors:
    """The vectors of N texts, read from the cache on access."""

    cache: VectorCache
    places: NDArray[np.int64]

    def slice(self, start: int, stop: int) -> Tensor:
        """The vectors [start, stop): [stop - start, H]."""
        return torch.from_numpy(self.cache.take(self.places[start:stop]))

    def at(self, numbers: list[int]) -> Tensor:
        """The vectors of the given texts: [len(numbers), H]."""
        return torch.from_numpy(self.cache.take(self.places[numbers]))


def encode_all(
    embedder: Embedder,
    count: int,
    read: Read,
    cache: VectorCache,
    encoding: EncodingSettings,
    what: str,
) -> Vectors:
    """The vectors of ``count`` distinct texts; those in the cache are not encoded again.

    Collective: all W processes of a run call it together. Each encodes every W-th block and then
    reads the vectors of all blocks.

    Args:
        count: N.
        read: Returns texts with their prompts.
        cache: For this model and these settings.
        what: What the texts are, for the progress bar and errors.

    Raises:
        ValueError: A vector is not finite.
    """
    state = PartialState()
    cache.refresh()
    keys: list[Keys] = []
    mine = range(state.process_index * BLOCK, count, state.num_processes * BLOCK)
    own = sum(min(BLOCK, count - start) for start in mine)
    with tqdm(total=own, desc=f"encoding {what}", disable=not encoding.show_progress) as bar:
        for start in range(0, count, BLOCK):
            texts = read(start, min(start + BLOCK, count))
            keys.append(text_keys(texts))
            if start in mine:
                encode_block(embedder, texts, keys[-1], cache, encoding, what)
                bar.update(len(texts))
    state.wait_for_everyone()
    cache.refresh()
    places = cache.find(np.concatenate(keys) if keys else np.empty((0, 2), np.uint64))
    assert (places >= 0).all()
    return Vectors(cache, places)


def encode_block(
    embedder: Embedder,
    texts: list[str],
    keys: Keys,
    cache: VectorCache,
    encoding: EncodingSettings,
    what: str,
) -> None:
    """Encode those of N texts that are not in the cache, by their keys [N, 2]."""
    missing = np.flatnonzero(cache.find(keys) < 0)
    if not len(missing):
        return
    vectors = embedder.encode(
        [texts[at] for at in missing],
        prompt="",  # the texts have it already
        max_length=encoding.max_length,
        tokens_per_batch=encoding.tokens_per_batch,
        bf16=encoding.bf16,
    )
    wrong = (~vectors.isfinite().all(dim=1)).nonzero()[:, 0]
    if len(wrong):
        text = texts[missing[int(wrong[0])]][:60]
        raise ValueError(
            f"the model's vectors of {len(wrong)} {what} contain NaN or infinity (the first: "
            f"{text!r}): it has diverged"
        )
    cache.append(keys[missing], for_dot_product(vectors, embedder.similarity).numpy())
