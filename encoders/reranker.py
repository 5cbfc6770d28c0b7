"""The reranker: a query and a document to a score."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from torch import Tensor
from transformers import AutoModelForSequenceClassification

from encoders.backbone import Encoder, open_backbone, open_tokenizer
from encoders.source import find_model

logger = logging.getLogger(__name__)

# Shapes: P pairs of query and document, L tokens of the longest pair.

SIGMOID = "torch.nn.modules.activation.Sigmoid"


class Reranker(Encoder):
    """A sequence classifier with one label over query and document joined by the tokenizer.

    Open one with ``Reranker.from_pretrained``. Its folder is a plain transformers folder, with
    the activation named in ``config.json`` where sentence-transformers' ``CrossEncoder`` looks.
    """

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        max_length: int | None = None,
        prompts: dict[str, str] | None = None,
        unpad_inputs: bool = True,
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> Self:
        """Open a sequence classifier with one label, or a backbone, which gets a new head.

        Args:
            name_or_path: A folder, a name on the Hub, or ``package://<module>/<path>``.
            max_length: Tokens after which a pair is cut; None: as the folder says.
            prompts: Replaces the folder's prompts.
            unpad_inputs: Compute on real tokens only, where the backbone can.
            revision: Branch, tag or commit on the Hub.
            trust_remote_code: Whether Python code of the folder may run.

        Raises:
            ValueError: No such model, no weights, or a classifier of several labels.
        """
        folder = find_model(str(name_or_path), revision)
        backbone, missing = open_backbone(
            AutoModelForSequenceClassification,
            folder,
            trust_remote_code=trust_remote_code,
            num_labels=1,
        )
        body = {name for name in missing if name.startswith(backbone.base_model_prefix + ".")}
        body = {name for name in body if ".pooler." not in name}
        if body:
            raise ValueError(
                f"model_name_or_path: {folder} lacks {len(body)} of the backbone's weights "
                f"({', '.join(sorted(body)[:3])}, ...); it is not a whole model"
            )
        if missing:
            logger.info("%s has no scoring head: it starts from random weights", name_or_path)
        tokenizer = open_tokenizer(folder, trust_remote_code)
        if backbone.config.pad_token_id is None:
            backbone.config.pad_token_id = tokenizer.pad_token_id
        if max_length is None and tokenizer.model_max_length < 1e9:
            max_length = tokenizer.model_max_length
        saved = getattr(backbone.config, "sentence_transformers", None) or {}
        if prompts is None:
            prompts = {side: text for side, text in (saved.get("prompts") or {}).items() if text}
        return cls(
            backbone, tokenizer, max_length=max_length, unpad_inputs=unpad_inputs, prompts=prompts
        )

    def forward(self, **inputs: Tensor) -> Tensor:
        """Tokens of pairs [P, L] to scores [P] (raw logits)."""
        return self.backbone(**inputs).logits.squeeze(-1)

    def score(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        raw: bool = False,
        prompts: dict[str, str] | None = None,
        max_length: int | None = None,
        tokens_per_batch: int | None = None,
        bf16: bool = False,
        show_progress: bool = False,
    ) -> Tensor:
        """Score (query, document) pairs: float32 [len(pairs)] on the CPU, in the order given.

        Args:
            pairs: Any number of pairs, none included.
            raw: Logits instead of their sigmoid, which lies between 0 and 1.
            prompts: Text put before each "query" and "document"; None: the model's own prompts.
            max_length: Tokens after which a pair is cut, the longer text first; None: the model's.
            tokens_per_batch: About so many tokens in one forward; None: what suits the device.
            bf16: Compute in bf16, on devices that have it.
            show_progress: Show a progress bar.
        """
        prompts = self.prompts if prompts is None else prompts
        before = prompts.get("query", ""), prompts.get("document", "")
        scores = self.run_all(
            [before[0] + query for query, _ in pairs],
            [before[1] + document for _, document in pairs],
            truncation="longest_first",
            max_length=max_length,
            tokens_per_batch=tokens_per_batch,
            bf16=bf16,
            show_progress=show_progress,
        )
        return scores if raw else scores.sigmoid()

    def save_pretrained(
        self, folder: str | Path, state_dict: dict[str, Tensor] | None = None
    ) -> None:
        """Write a folder that ``CrossEncoder`` and ``AutoModelForSequenceClassification`` load.

        Args:
            folder: Where to.
            state_dict: This module's weights, where they are not in it (gathered from shards).
        """
        about: dict[str, Any] = {"activation_fn": SIGMOID}
        if prompts := {side: prompt for side, prompt in self.prompts.items() if prompt}:
            about["prompts"] = prompts
        self.backbone.config.sentence_transformers = about
        state = self.state_dict() if state_dict is None else state_dict
        weights = {name.removeprefix("backbone."): weight for name, weight in state.items()}
        self.save_backbone(Path(folder), weights)
