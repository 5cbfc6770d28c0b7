"""Settings of inference, and running a model on texts shared among the processes of a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, distributed
from tqdm import tqdm

from encoders.backbone import TOKENS_PER_BATCH, Encoder
from encoders.unpadding import cut_by_tokens
from evaluation.search.faiss_index import IndexKind

# Shapes: N texts.

CHARACTERS_OF_TOKEN = 4
ROWS_AT_ONCE = 2**16  # of results that are sent at once


@dataclass(frozen=True)
class InferenceSettings:
    """Settings of inference. Longer texts are truncated; None: at the model's own limit."""

    bf16: bool = False  # on devices that have it
    query_max_length: int | None = None  # embedder: tokens of a query
    document_max_length: int | None = None  # embedder: tokens of a document
    max_length: int | None = None  # reranker: tokens of a pair
    tokens_per_batch: int | None = None  # approximately, in a forward; None: by device
    index: IndexKind | None = None  # embedder: FAISS, for large corpora; None: exact search
    show_progress: bool = False


def run_distributed(
    model: Encoder,
    sizes: Sequence[int],
    run: Callable[[list[int]], Tensor],
    inference: InferenceSettings,
    max_length: int | None,
    shape: tuple[int, ...] = (),
    pieces: Sequence[list[int]] | None = None,
) -> Tensor:
    """Run a model on N texts, each process on its share: float32 [N, *shape], on the CPU.

    The texts are cut, by rising size, into batches that are the same for any number of processes,
    and dealt round robin. So the processes finish at about the same time, and a text shares its
    batch with the same others, and has the same rounding, as in one process.

    Args:
        model: Tells where results are sent from, and how long its texts may be.
        sizes: Characters of each text.
        run: Takes the numbers of some texts, and returns a result for each.
        inference: Says how large batches are, and whether the first process shows a progress bar.
        max_length: Tokens after which a text is cut; None: the model's own limit.
        shape: Of one result.
        pieces: The batches, if they are not to be cut by size.
    """
    several = distributed.is_available() and distributed.is_initialized()
    world, rank = (distributed.get_world_size(), distributed.get_rank()) if several else (1, 0)
    pieces = pieces or cut(model, sizes, inference, max_length)
    results = torch.empty(len(sizes), *shape)
    hidden = not inference.show_progress or rank > 0
    with tqdm(total=len(sizes), disable=hidden, unit="text", leave=False) as bar:
        for number, piece in enumerate(pieces):
            if number % world == rank:
                results[piece] = run(piece)
            bar.update(len(piece))
    if several:
        owners = [list(chain(*pieces[other::world])) for other in range(world)]
        all_gather_rows(results, owners, model.device)
    return results


def cut(
    model: Encoder, sizes: Sequence[int], inference: InferenceSettings, max_length: int | None
) -> list[list[int]]:
    """Cut texts, given by their characters, into batches: the numbers of each; see above."""
    longest = CHARACTERS_OF_TOKEN * (max_length or model.max_length)
    budget = CHARACTERS_OF_TOKEN * (inference.tokens_per_batch or TOKENS_PER_BATCH)
    return cut_by_tokens([min(size, longest) for size in sizes], budget)


def all_gather_rows(results: Tensor, owners: Sequence[list[int]], device: torch.device) -> None:
    """Fill in the rows that other processes have computed.

    Args:
        results: [N, ...], on the CPU; this process has its own rows in it.
        owners: Which rows each process has.
        device: Of the model. NCCL sends from there only, Gloo from the CPU.
    """
    if distributed.get_backend() == "gloo":
        device = torch.device("cpu")
    rank = distributed.get_rank()
    for start in range(0, max(map(len, owners)), ROWS_AT_ONCE):
        parts = [rows[start : start + ROWS_AT_ONCE] for rows in owners]
        sent = results.new_zeros(max(map(len, parts)), *results.shape[1:])
        sent[: len(parts[rank])] = results[parts[rank]]
        sent = sent.to(device)
        received = [torch.empty_like(sent) for _ in parts]
        distributed.all_gather(received, sent)
        for rows, part in zip(parts, received, strict=True):
            results[rows] = part[: len(rows)].cpu()
