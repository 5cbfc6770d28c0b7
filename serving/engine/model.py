"""A loaded model: batches of tokens in, an embedding or a score for each text out."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from encoders import Embedder, kinds
from encoders.backbone import Encoder, bf16_is_fast
from encoders.kinds import Kind, kind_of, retrieves
from serving.engine.latency import LatencyEstimator
from serving.engine.tokenization import TextTokenizer, Tokens

# Shapes: N texts or pairs, H dimensions of an embedding.

Precision = Literal["auto", "float32", "bfloat16"]

SHORT, MIDDLE = 8, 64  # tokens of texts for warming up


class ServedModel:
    """An encoder on its device. Only one thread may call ``compute``.

    Args:
        encoder: The embedder or reranker.
        name: The name that clients see.
        max_batch_tokens: Most tokens of a forward; None: 1,024 on a CPU, 16,384 elsewhere.
    """

    def __init__(self, encoder: Encoder, name: str, max_batch_tokens: int | None = None) -> None:
        self.encoder = encoder.eval()
        self.name = name
        self.kind = kind_of(encoder)
        self.tokenizer = TextTokenizer(encoder.tokenizer, encoder.max_length)
        self.prompts: dict[str, str] = encoder.prompts
        self.default_prompt = encoder.default_prompt
        self.similarity = encoder.similarity if retrieves(encoder) else "cosine"
        on_cpu = encoder.device.type == "cpu"
        self.max_batch_tokens = max_batch_tokens or (1024 if on_cpu else 16384)
        self._inputs = set(encoder.tokenizer.model_input_names)
        self.latency = LatencyEstimator((1, 0.0), (2, 0.0))

    @property
    def embedder(self) -> Embedder:
        """The encoder, of a model that makes embeddings."""
        assert retrieves(self.encoder)
        return self.encoder

    @property
    def vocabulary(self) -> int:
        """Ids are below this."""
        return int(self.encoder.config.vocab_size)

    def compute(self, batch: Sequence[Tokens]) -> np.ndarray:
        """Embeddings [N, H] or raw scores [N], in fp32."""
        given: dict[str, Any] = {"input_ids": [tokens.input_ids for tokens in batch]}
        if "token_type_ids" in self._inputs:
            given["token_type_ids"] = [tokens.token_type_ids for tokens in batch]
        inputs = self.encoder.tokenizer.pad(given, return_tensors="pt").to(self.encoder.device)
        found: torch.Tensor = self.encoder(**inputs)
        return found.float().cpu().numpy()

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
        times = [min(self._seconds(batch) for _ in range(3)) for batch in (small, large)]
        self.latency = LatencyEstimator((sizes[0], times[0]), (sizes[1], times[1]))

    def example(self, size: int) -> Tokens:
        """A harmless text or pair of about ``size`` tokens."""
        tokenizer = self.tokenizer
        text = "a " * (min(size, self.encoder.max_length) - 2)
        if self.kind.reads_pairs:
            return tokenizer.pairs([("a", text)])[0]
        return tokenizer.texts([text])[0]

    def _seconds(self, batch: Sequence[Tokens]) -> float:
        begun = time.perf_counter()
        self.compute(batch)
        return time.perf_counter() - begun


def open_model(
    kind: Kind,
    folder: str | Path,
    name: str,
    *,
    device: str = "auto",
    max_length: int | None = None,
    truncate_dim: int | None = None,
    max_batch_tokens: int | None = None,
    trust_remote_code: bool = False,
) -> ServedModel:
    """Load a model onto its device.

    Args:
        kind: "embedder" or "reranker".
        folder: A folder, a name on the Hub, or ``package://<module>/<path>``.
        name: The name that clients see.
        device: "auto" is the GPU if there is one; or torch's name, such as "cpu", "cuda:1".
        max_length: Tokens of a text or pair; None: the model's own.
        truncate_dim: Embedder: number of dimensions to keep; None: all.
        max_batch_tokens: Most tokens of a forward.
        trust_remote_code: Whether Python code of the folder may run.

    Raises:
        ValueError: There is no such model or device.
    """
    opened = kinds.open_model(
        folder,
        kind,
        max_length=max_length,
        truncate_dim=truncate_dim,
        trust_remote_code=trust_remote_code,
    )
    return ServedModel(opened.to(find_device(device)), name, max_batch_tokens)


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


def use_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether to multiply in bf16 on ``device``.

    Raises:
        ValueError: It is asked for on a CPU that only emulates it.
    """
    if precision == "bfloat16" and not bf16_is_fast(device):
        raise ValueError(
            "precision: this CPU has no bfloat16 instructions, and emulating them is many times "
            "slower; give auto or float32"
        )
    return precision != "float32" and bf16_is_fast(device)


@contextmanager
def inference(device: torch.device, bf16: bool) -> Iterator[None]:
    """The context of a thread's work. Autocast casts weights once, while the context is open."""
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        yield
