"""Encode texts for dot-product search: each once, through a cache, shared among processes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from encoders import Embedder
from encoders.similarity import for_dot_product
from mining.cache.text_digest import Keys, text_keys
from mining.cache.vectors import VectorCache

# Letters: N texts, H dimensions.

# A block is encoded by one process, and is what a process that is killed loses. Blocks are cut by
# the order of the texts alone, so that every number of processes makes the same batches, and with
# them the same bits.
BLOCK = 1024

Read = Callable[[int, int], list[str]]  # texts from one number to before another


@dataclass(frozen=True)
class Encoding:
    """How texts of one side are encoded.

    Args:
        max_length: Tokens after which a text is cut; None: the model's limit.
        tokens_per_batch: About so many tokens in one forward; None: what suits the device.
        bf16: Compute in bf16, on devices that have it.
        show_progress: Show a progress bar.
    """

    max_length: int | None = None
    tokens_per_batch: int | None = None
    bf16: bool = False
    show_progress: bool = False


class Vectors:
    """The vectors of N texts, read from a cache when they are asked for."""

    def __init__(self, cache: VectorCache, places: NDArray[np.int64]) -> None:
        self.cache = cache
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def slice(self, start: int, stop: int) -> Tensor:
        """Those from ``start`` to before ``stop``: [.., H]."""
        return torch.from_numpy(self.cache.take(self.places[start:stop]))

    def at(self, numbers: list[int]) -> Tensor:
        """Those of some texts: [.., H]."""
        return torch.from_numpy(self.cache.take(self.places[numbers]))


def encode_all(
    embedder: Embedder, count: int, read: Read, cache: VectorCache, how: Encoding, what: str
) -> Vectors:
    """The vectors of ``count`` different texts; what the cache has is not encoded again.

    All processes of a run call this together. Each encodes every W-th block and reads all.

    Args:
        embedder: The model; texts are given to it as they are.
        count: N.
        read: Gives the texts, each behind its prompt.
        cache: For this model and these settings.
        how: The settings.
        what: The name of the texts, for the progress bar and errors.

    Raises:
        ValueError: A vector is not finite.
    """
    state = PartialState()
    cache.refresh()
    keys: list[Keys] = []
    mine = range(state.process_index * BLOCK, count, state.num_processes * BLOCK)
    own = sum(min(BLOCK, count - start) for start in mine)
    with tqdm(total=own, desc=f"encoding {what}", disable=not how.show_progress) as bar:
        for start in range(0, count, BLOCK):
            texts = read(start, min(start + BLOCK, count))
            keys.append(text_keys(texts))
            if start in mine:
                _encode_block(embedder, texts, keys[-1], cache, how, what)
                bar.update(len(texts))
    state.wait_for_everyone()
    cache.refresh()
    places = cache.find(np.concatenate(keys) if keys else np.empty((0, 2), np.uint64))
    assert (places >= 0).all()
    return Vectors(cache, places)


def _encode_block(
    embedder: Embedder, texts: list[str], keys: Keys, cache: VectorCache, how: Encoding, what: str
) -> None:
    missing = np.flatnonzero(cache.find(keys) < 0)
    if not len(missing):
        return
    vectors = embedder.encode(
        [texts[at] for at in missing],
        prompt="",  # it stands before them by now
        max_length=how.max_length,
        tokens_per_batch=how.tokens_per_batch,
        bf16=how.bf16,
    )
    wrong = (~vectors.isfinite().all(dim=1)).nonzero()[:, 0]
    if len(wrong):
        text = texts[missing[int(wrong[0])]][:60]
        raise ValueError(
            f"the model's vectors of {len(wrong)} {what} have NaN or infinity (the first: "
            f"{text!r}): it has diverged"
        )
    cache.append(keys[missing], for_dot_product(vectors, embedder.similarity).numpy())
