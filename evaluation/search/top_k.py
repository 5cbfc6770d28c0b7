"""Running top-k: the best documents of each query, updated block by block."""

import torch
from torch import Tensor

# Shapes: Q queries, B documents of a block, H width of a vector, K the best of each query; N pairs
# of a query and a document whose score is computed.

NONE = torch.iinfo(torch.int64).min  # an empty slot
LOW = 2**32 - 1
PRODUCTS_AT_ONCE = 2**21  # 16 MiB of float64
MANY = 1 / 16  # of all pairs of a block; above it one float64 matrix product is faster

# The largest relative error of a factor in a float32 matrix product: torch may be set to round
# factors to bf16 or TF32 (``torch.set_float32_matmul_precision``).
ROUNDING = 2**-9


class TopK:
    """The K best documents of each query; exact, whatever the precision of matrix products.

    A float32 matrix product, with a bound on its error, filters the documents of a block that may
    be among the best; only their scores are computed in float64. Score and place are packed into
    one integer, so that one ``topk`` orders by score, and equal scores by place.

    Args:
        queries: [Q, H].
        norms: Their lengths [Q].
        k: K.
    """

    def __init__(self, queries: Tensor, norms: Tensor, k: int) -> None:
        self.queries = queries
        width = queries.shape[1]
        # The most that a score from a product can be off, for a document of length 1.
        self.error = (2 * ROUNDING + (width + 4) * 2**-24) * norms[:, None]  # [Q, 1]
        self.k = k
        self.keys = torch.full((len(queries), k), NONE, device=queries.device)  # [Q, K], falling

    def add(self, block: Tensor, places: Tensor, longest: float) -> None:
        """Update with a block of documents.

        Args:
            block: [B, H].
            places: Where each stands among equal ones, from 0: [B].
            longest: Length of the longest of its vectors.
        """
        scores = self.queries @ block.T  # [Q, B]
        error = self.error * longest
        chosen = scores >= _scores(self.keys[:, -1:]) - error
        if int(chosen.count_nonzero()) > 4 * self.keys.numel():
            worst = scores.topk(min(self.k, len(block))).values[:, -1:]
            chosen &= scores >= worst - 2 * error
        rows, columns = chosen.nonzero(as_tuple=True)  # [N], row after row
        if len(rows) == 0:
            return
        if len(rows) > MANY * chosen.numel():
            exact = (self.queries.double() @ block.double().T)[chosen].float()
        else:
            exact = self._products(block, rows, columns)
        counts = rows.bincount(minlength=len(self.queries))
        position = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
        new = self.keys.new_full((len(self.queries), int(counts.max())), NONE)
        new[rows, position] = _keys(exact, places[columns])
        self.keys = torch.cat([self.keys, new], dim=1).topk(self.k).values

    def rankings(self) -> list[list[tuple[int, float]]]:
        """The place and score of each query's best, best first."""
        places, scores = (LOW - (self.keys & LOW)).tolist(), _scores(self.keys).tolist()
        counts = (self.keys != NONE).sum(dim=1).tolist()
        return [
            list(zip(row[:count], found[:count], strict=True))
            for row, found, count in zip(places, scores, counts, strict=True)
        ]

    def _products(self, block: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """The dot products of these queries with these documents: [N]."""
        step = max(1, PRODUCTS_AT_ONCE // block.shape[1])
        pieces = zip(rows.split(step), columns.split(step), strict=True)
        return torch.cat(
            [(self.queries[row].double() * block[column]).sum(dim=1) for row, column in pieces]
        ).float()


def _keys(scores: Tensor, places: Tensor) -> Tensor:
    """Scores (float32) and places as integers that sort by score, then by falling place."""
    bits = (scores + 0.0).view(torch.int32)  # -0.0 becomes 0.0
    # The bits of negative numbers fall where the numbers rise.
    rising = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int64)
    return (rising << 32) | (LOW - places)


def _scores(keys: Tensor) -> Tensor:
    """The scores in keys; -inf where there is none."""
    rising = (keys >> 32).to(torch.int32)
    bits = torch.where(rising < 0, rising ^ 0x7FFFFFFF, rising)
    return bits.view(torch.float32).where(keys != NONE, -torch.inf)
