"""Base class of all models: a transformers backbone, its tokenizer, batching, saving, scoring."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, Unpack

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.hardware import bf16_is_fast
from common.prompts import QueryTokens, Side, check_room, prompt_mask, with_prompt
from encoders import unpadding
from encoders.export import OnnxBackbone
from encoders.inference import InferenceSettings, ScoreSettings
from encoders.opening.positions import check_positions, position_limit
from encoders.opening.template import save_tokenizer
from encoders.opening.tokens import batches, check_tokens, tokens_without_embedding
from encoders.opening.transformer import BackboneTask
from encoders.weights.lora import FOLDER, Lora, add_lora
from encoders.weights.sharding import layer_classes, shard_like

TOKENS_PER_BATCH = 2**15
TEXTS_TOKENIZED_AT_ONCE = 2**14


class Encoder(nn.Module):
    """A transformers model, its tokenizer and a length limit: what all kinds of model share.

    Args:
        backbone: The transformers model.
        tokenizer: Its tokenizer; its ``model_max_length`` is set to ``max_length``.
        max_length: Tokens to which a text (or pair) is truncated; None: the model's maximum.
        unpad_inputs: Compute on real tokens only, where the backbone can (see ``unpadding``).
        prompts: Put in front of texts, by name; "query" and "document" are used by scoring.
        trust_remote_code: Whether Python code of the model's folder was trusted; then checkpoints
            saved from it are, too.
    """

    kind: ClassVar[str]  # its row in ``encoders.kinds``
    backbone_task: ClassVar[BackboneTask]  # what transformers opens the backbone for
    backbone: PreTrainedModel
    query_tokens: QueryTokens | None = None  # of kinds that read queries otherwise than documents

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int | None = None,
        unpad_inputs: bool = True,
        prompts: Mapping[str, str] | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        check_positions(backbone, max_length or 0)
        unpadding.speed_up_dropout(backbone)
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.max_length: int = max_length or position_limit(backbone) or 512
        tokenizer.model_max_length = self.max_length
        computed_here = not isinstance(backbone, OnnxBackbone)
        self.unpadded = computed_here and unpadding.unpad_inputs(backbone, unpad_inputs)
        self.lora: Lora | None = None
        self.prompts = dict(prompts or {})
        self.new_weights: set[str] = set()  # names of those that no folder had, such as a new head
        self.trust_remote_code = trust_remote_code
        self.masks_prompts = False  # whether ``forward`` is given ``prompt_mask``
        self._unknown = tokens_without_embedding(tokenizer, backbone) if computed_here else []

    def check_tokens(self, input_ids: Tensor) -> None:
        """Refuse token ids beyond the embedding matrix; see ``encoders.opening.tokens``."""
        check_tokens(input_ids, self._unknown, self.tokenizer)

    def replace_prompts(self, query: str | None, document: str | None) -> None:
        """Replace the model's own prompts; None keeps one, "" removes it."""
        given = {"query": query, "document": document}
        self.prompts |= {side: prompt for side, prompt in given.items() if prompt is not None}

    def replace_lengths(self, query: int | None, document: int | None) -> None:
        """Replace the model's own lengths of queries and documents, of kinds that have them."""

    def find_length(self, side: Side, asked: int | None = None) -> int:
        """Tokens after which a query, or a document, is cut that is read alone.

        Raises:
            ValueError: The model cannot do as ``asked``.
        """
        return asked or self.max_length

    def find_prompt(self, name: str) -> str:
        """One of the model's prompts; "query" and "document" may be empty.

        Raises:
            ValueError: There is no prompt of that name.
        """
        if name in self.prompts or name in ("query", "document"):
            return self.prompts.get(name, "")
        known = ", ".join(sorted({"query", "document", *self.prompts}))
        raise ValueError(f"prompt_name: {name!r} is not one of the model's prompts: {known}")

    @property
    def default_prompt(self) -> str:
        """The prompt of a text for which none is chosen; none, where the kind has no such thing."""
        return ""

    def add_prompts(
        self, queries: Sequence[str], documents: Sequence[str], settings: ScoreSettings
    ) -> tuple[list[str], list[str]]:
        """Put the prompts before queries and documents."""
        prompts = settings.get("prompts")
        prompts = self.prompts if prompts is None else prompts
        query, document = prompts.get("query", ""), prompts.get("document", "")
        own = settings.get("query_prompts") or [None] * len(queries)
        return (
            [with_prompt(text, query, mine) for text, mine in zip(queries, own, strict=True)],
            [with_prompt(text, document) for text in documents],
        )

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Self:
        """Open a folder or a name on the Hub; each kind has its own settings."""
        raise NotImplementedError

    def save_pretrained(
        self, folder: str | Path, state_dict: dict[str, Tensor] | None = None
    ) -> None:
        """Write a folder that ``from_pretrained`` opens.

        Args:
            folder: Where to.
            state_dict: This module's weights, where they are not in it (gathered from shards).
        """
        raise NotImplementedError

    def score_pairs(
        self, queries: Sequence[str], documents: Sequence[str], **settings: Unpack[ScoreSettings]
    ) -> Tensor:
        """Score each query with the document beside it: float32 [N] on the CPU, unbounded.

        These scores order pairs; ``kinds.displayed_scores`` brings them to the scale that is shown.
        Texts go behind the model's own prompts for their sides unless ``settings`` say otherwise.
        """
        raise NotImplementedError

    def architecture(self) -> dict[str, Any]:
        """What decides the output besides weights, configuration and tokenizer, as JSON."""
        return {}

    def add_lora(self, base: str, **settings: Any) -> None:
        """Freeze the backbone and train adapters; arguments as in ``weights.lora.add_lora``."""
        self.lora = add_lora(self.backbone, base, **settings)
        unpadding.speed_up_dropout(self.backbone)

    def save_backbone(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """Write backbone (LoRA merged) and tokenizer, and the adapter in a folder of its own.

        ``weights`` are the whole model's.
        """
        part = "backbone."
        weights = {k.removeprefix(part): w for k, w in weights.items() if k.startswith(part)}
        if self.lora is not None:
            self.lora.save(folder / FOLDER, weights)
            weights = self.lora.merged(weights)
        self.backbone.save_pretrained(folder, state_dict=weights)
        save_tokenizer(self.tokenizer, folder)

    def load_weights(self, folder: str | Path) -> None:
        """Load the weights of a folder that ``save_pretrained`` wrote for this model.

        Raises:
            ValueError: The folder does not hold such a model.
        """
        opened = type(self).from_pretrained(folder, trust_remote_code=self.trust_remote_code)
        weights, own = opened.state_dict(), self.state_dict()
        if self.lora is not None:
            loaded = self.lora.load(Path(folder) / FOLDER, self.backbone.state_dict())
            rest = {k: v for k, v in weights.items() if not k.startswith("backbone.")}
            weights = own | rest | {f"backbone.{name}": w for name, w in loaded.items()}
        self.load_state_dict(shard_like(weights, own))

    def run_backbone(self, host_mask: unpadding.HostMask | None, **inputs: Any) -> Any:
        """The backbone's output; ``host_mask`` spares it to read the attention mask of a GPU."""
        with unpadding.known_mask(host_mask):
            return self.backbone(**inputs)

    def token_states(
        self, attention_mask: Tensor, host_mask: unpadding.HostMask | None, **inputs: Tensor
    ) -> list[unpadding.PackedSequence]:
        """The backbone's states of all real tokens, without padding."""
        if self.unpadded:
            inputs["attention_mask"] = attention_mask
            return list(self.run_backbone(host_mask, **inputs, pad_output=False))
        real = unpadding.at_least_one_token(attention_mask)
        output = self.backbone(attention_mask=real, **inputs)
        layers = [
            layer[real.bool()][None] for layer in getattr(output, "hidden_states", None) or ()
        ]
        texts, states = list(range(len(real))), output.last_hidden_state[real.bool()]
        return [unpadding.PackedSequence(states, texts, real.sum(dim=1), layers or None)]

    def forward_in_batches(
        self,
        *texts: Sequence[str],
        truncation: str | bool = True,
        **settings: Unpack[InferenceSettings],
    ) -> Tensor:
        """``forward`` in batches on any number of texts (or pairs of texts), in the order given.

        Returns:
            float32 on the CPU, [N, ...] as ``forward`` gives it; [0] of no texts.

        Raises:
            ValueError: There is no such length.
        """
        results = []
        for block in self.forward_in_blocks(*texts, truncation=truncation, **settings):
            order = torch.tensor([at for piece, _ in block for at in piece])
            # A GPU has a whole block to do before the host waits for it.
            results.append(torch.cat([found for _, found in block]).cpu()[order.argsort()])
        return torch.cat(results) if results else torch.zeros(0)

    @torch.inference_mode()
    def forward_in_blocks(
        self,
        *texts: Sequence[str],
        truncation: str | bool = True,
        texts_at_once: int = TEXTS_TOKENIZED_AT_ONCE,
        query_tokens: QueryTokens | None = None,
        **settings: Unpack[InferenceSettings],
    ) -> Iterator[list[tuple[list[int], Tensor]]]:
        """The batches of each block of ``texts_at_once``: places in it, and ``forward``'s output.

        ``query_tokens``: of texts that are queries, for kinds that ask. Raises as above.
        """
        self.eval()
        budget = settings.get("tokens_per_batch") or TOKENS_PER_BATCH
        asked = settings.get("max_length")
        limit = self.max_length if asked is None else asked
        check_positions(self.backbone, limit)
        check_room(self.tokenizer, "max_length", limit, pair=len(texts) > 1)
        bf16 = settings.get("bf16", False) and bf16_is_fast(self.device)
        hidden, count = not settings.get("show_progress"), len(texts[0])
        with (
            torch.autocast(self.device.type, torch.bfloat16, enabled=bf16),
            tqdm(total=count, disable=hidden, unit="text", leave=False) as bar,
        ):
            for start in range(0, count, texts_at_once):
                block = [list(side[start : start + texts_at_once]) for side in texts]
                found = []
                for piece, batch in batches(
                    self.tokenizer, block, budget, truncation, limit, query_tokens
                ):
                    if self.masks_prompts:
                        own = [block[0][at] for at in piece]
                        batch["prompt_mask"] = prompt_mask(self.tokenizer, own, batch)
                    mask = batch["attention_mask"].numpy()
                    inputs = {name: unpadding.to_device(batch[name], self.device) for name in batch}
                    more = {} if query_tokens is None else {"query_mask": query_tokens.mask(mask)}
                    found.append((piece, self(**inputs, **more, host_mask=mask).float()))
                    bar.update(len(piece))
                yield found

    @property
    def config(self) -> Any:
        """The transformers configuration (``Trainer`` and its loggers read it)."""
        return self.backbone.config

    @property
    def device(self) -> torch.device:
        """Where the weights are; the CPU for ONNX Runtime, whose weights torch does not see."""
        return next(self.parameters(), torch.empty(0)).device

    @property
    def _no_split_modules(self) -> list[str]:
        """Class names that accelerate wraps with FSDP, unless its configuration names others."""
        return layer_classes(self.backbone)

    def activation_checkpointing_enable(self, **kwargs: Any) -> None:
        """Called by ``Trainer`` for ``activation_checkpointing: true`` (gradient checkpointing)."""
        self.backbone.activation_checkpointing_enable(**kwargs)
