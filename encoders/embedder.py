"""The embedder: a text to a vector."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel

from encoders.backbone import Encoder, open_backbone, open_tokenizer
from encoders.kind import find_kind
from encoders.layout import Layout, read_layout, write_layout
from encoders.pooling import POOLINGS, Pooling, pool
from encoders.projection import Projection
from encoders.source import find_model
from encoders.template import end_with_eos

logger = logging.getLogger(__name__)

# Shapes: N texts, L tokens of the longest, H dimensions of an embedding.


class Embedder(Encoder):
    """A backbone, a pooling, an optional projection, and unit length.

    Open one with ``Embedder.from_pretrained``; arguments beside those of ``Encoder``:

    Args:
        pooling: "cls", "mean" or "last".
        projection: To another width, or None.
        normalize: Bring embeddings to unit length.
        truncate_dim: Keep so many of the first dimensions (of a model trained for it, by
            Matryoshka); None: all.
    """

    def __init__(
        self,
        *args: Any,
        pooling: Pooling = "mean",
        projection: Projection | None = None,
        normalize: bool = True,
        truncate_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if pooling not in POOLINGS:
            raise ValueError(f"pooling: {pooling!r} is not one of {', '.join(POOLINGS)}")
        self.pooling = pooling
        self.projection = projection
        self.normalize = normalize
        self.truncate_dim = truncate_dim
        if truncate_dim is not None and not 1 <= truncate_dim <= self.full_dimension:
            raise ValueError(
                f"truncate_dim: must be from 1 to the model's {self.full_dimension} dimensions, "
                f"got {truncate_dim}"
            )
        # BERT's pooler takes no part in an embedding. It stays in the folder as it was; trained,
        # it would have no gradient, which DDP does not forgive.
        if getattr(self.backbone, "pooler", None) is not None:
            self.backbone.pooler.requires_grad_(False)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        pooling: Pooling | None = None,
        projection_dim: int | None = None,
        normalize: bool | None = None,
        prompts: dict[str, str] | None = None,
        max_length: int | None = None,
        truncate_dim: int | None = None,
        append_eos_token: bool = False,
        unpad_inputs: bool = True,
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> Self:
        """Open a sentence-transformers folder or a plain backbone; None keeps what it says.

        Args:
            name_or_path: A folder, a name on the Hub, or ``package://<module>/<path>``.
            pooling: For a folder that says nothing: "mean".
            projection_dim: Add a new linear projection to this width (random weights).
            normalize: For a folder that says nothing: True.
            prompts: Replaces the folder's prompts.
            max_length: Tokens after which a text is cut.
            truncate_dim: Keep so many of the first dimensions of an embedding.
            append_eos_token: End each text with the tokenizer's end token, if it does not yet; for
                decoders with pooling "last".
            unpad_inputs: Compute on real tokens only, where the backbone can.
            revision: Branch, tag or commit on the Hub.
            trust_remote_code: Whether Python code of the folder may run.

        Raises:
            ValueError: No such model, no weights, or a part that cannot be run here.
        """
        folder = find_model(str(name_or_path), revision)
        if find_kind(folder) == "reranker":
            logger.warning("%s is a reranker: its scoring head is left out", name_or_path)
        layout = read_layout(folder)
        backbone, missing = open_backbone(
            AutoModel, folder / layout.backbone, trust_remote_code=trust_remote_code
        )
        missing = {name for name in missing if not name.startswith("pooler.")}
        if missing:
            raise ValueError(
                f"model_name_or_path: {folder} lacks {len(missing)} of the backbone's weights "
                f"({', '.join(sorted(missing)[:3])}, ...); it is not a whole model"
            )
        projection = layout.projection
        if projection_dim is not None:
            if projection is not None:
                raise ValueError(
                    f"projection_dim: {folder} has a projection already (to "
                    f"{projection.linear.out_features}); leave projection_dim out to go on with it"
                )
            projection = Projection(backbone.config.hidden_size, projection_dim)
        tokenizer = open_tokenizer(folder / layout.backbone, trust_remote_code)
        if normalize is None:
            normalize = True if layout.normalize is None else layout.normalize
        return cls(
            backbone,
            end_with_eos(tokenizer) if append_eos_token else tokenizer,
            max_length=max_length or layout.max_length,
            unpad_inputs=unpad_inputs,
            pooling=pooling or layout.pooling or "mean",
            projection=projection,
            normalize=normalize,
            prompts=layout.prompts if prompts is None else prompts,
            truncate_dim=truncate_dim,
        )

    @property
    def dimension(self) -> int:
        """Dimensions H of an embedding."""
        return self.truncate_dim or self.full_dimension

    @property
    def full_dimension(self) -> int:
        """Dimensions before any are cut off."""
        if self.projection is None:
            return int(self.backbone.config.hidden_size)
        return self.projection.linear.out_features

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **inputs: Tensor) -> Tensor:
        """Tokens [N, L] to embeddings [N, H]."""
        rows = self.rows(input_ids=input_ids, attention_mask=attention_mask, **inputs)
        order = torch.tensor([text for row in rows for text in row.texts], device=self.device)
        pooled = torch.cat([pool(row.states, row.lengths, self.pooling) for row in rows])
        embeddings = pooled[order.argsort()]
        if self.projection is not None:
            embeddings = self.projection(embeddings)
        embeddings = embeddings[:, : self.truncate_dim]
        return F.normalize(embeddings.float(), dim=-1) if self.normalize else embeddings

    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        max_length: int | None = None,
        tokens_per_batch: int | None = None,
        bf16: bool = False,
        show_progress: bool = False,
    ) -> Tensor:
        """Embed texts: float32 [len(texts), H] on the CPU, in the order given.

        Args:
            texts: Any number of texts, none included.
            prompt: Put before each text.
            prompt_name: Or one of the model's own prompts: "query" or "document".
            max_length: Tokens after which a text is cut; None: the model's own limit.
            tokens_per_batch: About so many tokens in one forward; None: what suits the device.
            bf16: Compute in bf16, on devices that have it.
            show_progress: Show a progress bar.
        """
        if prompt is None:
            prompt = self.prompts.get(prompt_name, "") if prompt_name else ""
        return self.run_all(
            [prompt + text for text in texts],
            max_length=max_length,
            tokens_per_batch=tokens_per_batch,
            bf16=bf16,
            show_progress=show_progress,
        ).view(len(texts), self.dimension)

    def save_pretrained(
        self, folder: str | Path, state_dict: dict[str, Tensor] | None = None
    ) -> None:
        """Write a folder that sentence-transformers (5.1 to today's) and ``AutoModel`` load.

        Args:
            folder: Where to.
            state_dict: This module's weights, where they are not in it (gathered from shards).
        """
        folder = Path(folder)
        state = self.state_dict() if state_dict is None else state_dict
        parts: dict[str, dict[str, Tensor]] = {"backbone": {}, "projection": {}}
        for name, weight in state.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = weight
        self.save_backbone(folder, parts["backbone"])
        layout = Layout(
            pooling=self.pooling,
            projection=self.projection,
            normalize=self.normalize,
            prompts=self.prompts,
            max_length=self.max_length,
        )
        write_layout(folder, layout, self.backbone.config.hidden_size, parts["projection"])
