"""A loaded model: batches of tokens in, an embedding or a score for each text out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from timeit import repeat
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from common.prompts import PADDED, Side, prompt_mask, with_prompt
from encoders import Embedder, kinds
from encoders.backbone import Encoder
from encoders.kinds import Kind, VectorModel, kind_of, makes_vectors, retrieves
from encoders.multi_vector import MultiVectorEncoder
from encoders.opening.bf16_weights import place_for_inference
from encoders.unpadding import to_device
from evaluation.search.fusion import Fusion, bm25_weight, first_stage_digest, read_fusion
from serving.engine.limits import LatencyEstimator
from serving.engine.tokenization import TextTokenizer, Tokens, Truncation

# Shapes: N texts or pairs, H dimensions of an embedding, T tokens of a text.

Precision = Literal["auto", "float32", "bfloat16"]

SHORT, MIDDLE = 8, 64  # tokens of texts for warming up
MULTIPLE = 16  # of which the length of a padded batch is one


class ServedModel:
    """An encoder on its device. Only one thread may call ``compute``.

    Args:
        encoder: The embedder or reranker.
        name: The name that clients see.
        max_batch_tokens: Most tokens of a forward; None: 1,024 on a CPU, 16,384 elsewhere.
        fusion: What its scores are fused with in a search.

    Raises:
        ValueError: Its length leaves no room for a text.
    """

    def __init__(
        self,
        encoder: Encoder,
        name: str,
        max_batch_tokens: int | None = None,
        fusion: Fusion | None = None,
    ) -> None:
        self.encoder = encoder.eval()
        self.name = name
        self.fusion = fusion
        self.kind = kind_of(encoder)
        self.about = self.kind.info(encoder)
        self.tokenizer = TextTokenizer(encoder.tokenizer, encoder.max_length)
        # The most tokens of a query and of a document, where they are read separately.
        self.lengths = encoder.find_length("query"), encoder.find_length("document")
        self.shown_length = " or ".join(dict.fromkeys(map(str, self.lengths)))
        self._check_room()
        self.prompts: dict[str, str] = encoder.prompts
        self.similarity = encoder.similarity if retrieves(encoder) else "cosine"
        self.device = str(encoder.device)
        on_cpu = encoder.device.type == "cpu"
        self.max_batch_tokens = max_batch_tokens or (1024 if on_cpu else 16384)
        self._inputs = set(encoder.tokenizer.model_input_names)
        self.latency = LatencyEstimator((1, 0.0), (2, 0.0))

    def _check_room(self) -> None:
        pairs = self.kind.reads_pairs
        special = self.tokenizer.pair if pairs else self.tokenizer.single
        if self.encoder.max_length < special.min_length:
            raise ValueError(
                f"{'max_length' if pairs else 'text_max_length'}: {self.encoder.max_length} tokens "
                f"leave no room beside the {special.size} special ones of {self.name}; give at "
                f"least {special.min_length}"
            )

    @property
    def reads_texts_separately(self) -> bool:
        """Whether it scores pairs but reads each text by itself (late interaction)."""
        return not (self.kind.retrieves or self.kind.reads_pairs)

    @property
    def bm25_weight(self) -> float:
        """How much BM25 counts beside its similarity."""
        return bm25_weight(self.fusion)

    def pairs(self, pairs: Sequence[tuple[str, str]], truncation: Truncation) -> list[Tokens]:
        """Tokens of pairs for a model that scores them."""
        if self.reads_texts_separately:
            return self.tokenizer.separate_pairs(pairs, self.lengths, truncation)
        return self.tokenizer.pairs(pairs, truncation.side, truncation.max_document)

    def sides(
        self, queries: Sequence[str], documents: Sequence[str], truncation: Truncation
    ) -> list[Tokens]:
        """Tokens of queries and documents to embed, behind the prompts for their sides."""
        queries, documents = self.encoder.add_prompts(queries, documents, {})
        if not self.reads_texts_separately:
            return self.tokenizer.texts([*queries, *documents], truncation.side)
        asked, found = self.lengths
        return [
            *self.tokenizer.separate_texts(queries, "query", asked, truncation),
            *self.tokenizer.separate_texts(documents, "document", found, truncation),
        ]

    @property
    def embedder(self) -> Embedder:
        """The encoder, of a model that makes embeddings."""
        assert retrieves(self.encoder)
        return self.encoder

    @property
    def vector_model(self) -> VectorModel:
        """The encoder, of a model that searches a store."""
        assert makes_vectors(self.encoder)
        return self.encoder

    def compute(self, batch: Sequence[Tokens]) -> np.ndarray | list[np.ndarray]:
        """Embeddings [N, H] or raw scores [N], in fp32; of texts read separately a list of N."""
        if self.reads_texts_separately:
            return self._compute_separately(batch)
        given: dict[str, Any] = {"input_ids": [tokens.input_ids for tokens in batch]}
        if "token_type_ids" in self._inputs:
            given["token_type_ids"] = [tokens.token_type_ids for tokens in batch]
        padded = self.encoder.tokenizer.pad(
            given, "max_length", self._padded_length(batch), **PADDED
        )
        if self.encoder.masks_prompts:
            prompts = [with_prompt("", tokens.prompt) for tokens in batch]
            padded["prompt_mask"] = prompt_mask(self.encoder.tokenizer, prompts, padded)
        inputs = {name: to_device(padded[name], self.encoder.device) for name in padded}
        mask = padded["attention_mask"].numpy()
        found: torch.Tensor = self.encoder(**inputs, host_mask=mask)
        return found.float().cpu().numpy()

    def _compute_separately(self, batch: Sequence[Tokens]) -> list[np.ndarray]:
        """The scores [] of pairs, and the vectors [T, H] of single texts."""
        settings: Any = {
            "bf16": torch.is_autocast_enabled(self.encoder.device.type),
            "tokens_per_batch": self.max_batch_tokens,
        }
        found: dict[int, np.ndarray] = {}
        sides: tuple[Side | None, ...] = (None, "query", "document")
        for side in sides:
            own = {at: t.texts for at, t in enumerate(batch) if t.read_as == side and t.texts}
            if not own:
                continue
            texts = list(zip(*own.values(), strict=True))
            if side is None:
                values = list(self.encoder.score_pairs(*texts, prompts={}, **settings))
            else:
                assert isinstance(self.encoder, MultiVectorEncoder)
                values = self.encoder.encode(*texts, side=side, prompt="", **settings)
            found |= zip(own, (value.numpy() for value in values), strict=True)
        return [found[at] for at in range(len(batch))]

    def _padded_length(self, batch: Sequence[Tokens]) -> int:
        """The longest text's tokens; of a model that computes its padding, one of few lengths.

        Each size has kernels of its own, whose memory does not come back.
        """
        longest = max(1, *map(len, batch))
        rounded = longest if self.encoder.unpadded else -(-longest // MULTIPLE) * MULTIPLE
        return max(longest, min(rounded, self.encoder.max_length))

    def hold_in_bf16(self) -> None:
        """Hold in bf16 the matrices that autocast would convert: half the memory, equal results.

        The rest, which autocast reads in fp32, stays so. Not to be saved or digested any more.
        """
        for module in self.encoder.modules():
            if isinstance(module, (nn.Linear, Conv1D)):
                module.to(torch.bfloat16)

    def drop_weights(self) -> None:
        """Keep what requests are checked and tokenized by; another process computes."""
        hollow: Any = nn.Module()
        hollow.config = self.encoder.config
        self.encoder.backbone = hollow

    def warm_up(self) -> None:
        """Run a small, a full and the longest batch, and fit the estimate of latency.

        Raises:
            ValueError: The model computes NaN or infinity.
        """
        longest = self.encoder.max_length
        count = max(1, self.max_batch_tokens // min(MIDDLE, longest))
        small, large = [self.example(SHORT)], [self.example(MIDDLE)] * count
        for batch in ([self.example(longest)], large, small):
            if not np.isfinite(self.compute(batch)).all():
                raise ValueError(
                    f"model: {self.name} gives values that are not finite; its weights are broken"
                )
        sizes = [sum(map(len, batch)) for batch in (small, large)]
        times = [
            min(repeat(partial(self.compute, batch), number=1, repeat=3))
            for batch in (small, large)
        ]
        self.latency = LatencyEstimator((sizes[0], times[0]), (sizes[1], times[1]))

    def example(self, size: int) -> Tokens:
        """A harmless text or pair of about ``size`` tokens."""
        text = "a " * max(1, min(size, self.encoder.max_length) - 2)
        if self.kind.retrieves:
            return self.tokenizer.texts([text])[0]
        return self.pairs([("a", text)], Truncation())[0]


def open_model(
    kind: Kind,
    folder: str | Path,
    name: str,
    *,
    device: str = "auto",
    max_batch_tokens: int | None = None,
    **settings: Any,
) -> ServedModel:
    """Load a model onto its device.

    Args:
        kind: "embedder" or "reranker".
        folder: A folder, a name on the Hub, or ``package://<module>/<path>``.
        name: The name that clients see.
        device: "auto" is the GPU if there is one; or torch's name, such as "cpu", "cuda:1".
        max_batch_tokens: Most tokens of a forward.
        settings: As of ``encoders.kinds.open_model``.

    Raises:
        ValueError: There is no such model or device, or its scores are fused by a weight that was
            chosen for other settings.
    """
    opened = kinds.open_model(folder, kind, **settings)
    model = place_for_inference(opened, find_device(device))
    fusion = read_fusion(str(folder))
    if fusion is not None and (reason := fusion.model_mismatch(model)):
        raise ValueError(f"{kind}: {reason}")
    return ServedModel(model, name, max_batch_tokens, fusion)


def warm_up(models: Iterable[ServedModel], device: torch.device, bf16: bool) -> None:
    """Have models compute for the first time; see ``ServedModel.warm_up``."""
    with inference(device, bf16):
        for model in models:
            if bf16:
                model.hold_in_bf16()
            model.warm_up()


def check_fusion(models: Mapping[str, ServedModel]) -> None:
    """Refuse a reranker whose scores are fused with those of another embedder.

    Raises:
        ValueError: It was another one for which its weight was chosen.
    """
    if {"embedder", "reranker"} <= models.keys():
        embedder, fusion = models["embedder"], models["reranker"].fusion
        if fusion is not None:
            digest = first_stage_digest(embedder.encoder, embedder.fusion)
            if reason := fusion.first_stage_mismatch(digest, embedder.name):
                raise ValueError(f"reranker: {reason}")


def find_device(device: str) -> torch.device:
    """The device by name; "auto" is the GPU if there is one."""
    if device == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device: {device!r} cannot be used: {reason}") from None
    return found


@contextmanager
def inference(device: torch.device, bf16: bool) -> Iterator[None]:
    """The context of a thread's work. Autocast casts weights once, while the context is open."""
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        yield
