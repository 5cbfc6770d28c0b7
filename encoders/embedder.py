"""The embedder (bi-encoder): one vector for each text."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, Unpack

import torch
from sentence_transformers.base.modules import Dense, Module, Normalize
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn
from torch.nn import functional as F

from common.prompts import check_lists, check_pairs, with_prompt
from common.similarity import Similarity, pairwise
from encoders.backbone import Encoder
from encoders.inference import InferenceSettings, ScoreSettings, inference_settings
from encoders.modules.files import PACKABLE, pooling_modes, read_folder, write_modules
from encoders.modules.running import run_modules, run_padded
from encoders.modules.settings import (
    POOLINGS,
    change_modules,
    is_unit_length,
    output_width,
    prompt_lengths,
    read_prompts,
    warn_of_unknown_similarity,
    width_of,
)
from encoders.opening.model_name import is_classifier, resolve_model
from encoders.opening.template import end_with_eos
from encoders.opening.transformer import check_weights, open_backbone
from encoders.unpadding import HostMask, to_device

logger = logging.getLogger(__name__)

# Shapes: N texts, L tokens of the longest, H dimensions of an embedding.

# Keys of config_sentence_transformers.json that are not copied: they are written anew.
NOT_KEPT = ("__version__", "prompts")


class Embedder(Encoder):
    """A backbone followed by sentence-transformers modules: pooling, projections, normalisation.

    Open one with ``Embedder.from_pretrained``. Arguments besides those of ``Encoder``:

    Args:
        modules: After the backbone, in order; they compute ``sentence_embedding`` [N, H].
        truncate_dim: Keep only the first dimensions (for models trained with Matryoshka), and
            normalise again if the model ends with that; None: all.
        settings: The folder's ``config_sentence_transformers.json``. Its own ``truncate_dim`` cuts
            after all modules, as sentence-transformers does.
        do_lower_case: Whether the folder lower-cases texts on top of its tokenizer.
    """

    kind = "embedder"
    backbone_task = "feature-extraction"

    def __init__(
        self,
        *args: Any,
        modules: Sequence[Module],
        truncate_dim: int | None = None,
        settings: dict[str, Any] | None = None,
        do_lower_case: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.head: Any = nn.ModuleList(modules)
        self.settings = dict(settings or {})
        if truncate_dim is not None:
            self.settings.pop("truncate_dim", None)
        self.do_lower_case = do_lower_case
        poolings = [module for module in self.head if isinstance(module, Pooling)]
        self.masks_prompts = not all(module.include_prompt for module in poolings)
        self._ends_with_unit_length = is_unit_length(self.head[-1])
        width = output_width(self.head, width_of(self.backbone))
        width = min(width, self.settings.get("truncate_dim") or width)
        if truncate_dim is not None and not 1 <= truncate_dim <= width:
            raise ValueError(
                f"truncate_dim: must be from 1 to the model's {width} dimensions, "
                f"got {truncate_dim}"
            )
        self.truncate_dim = truncate_dim
        self.dimension = truncate_dim or width  # H
        # BERT's pooler takes no part in an embedding, and DDP stops at weights without a gradient.
        if getattr(self.backbone, "pooler", None) is not None:
            self.backbone.pooler.requires_grad_(False)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        pooling: str | None = None,
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
            pooling: A key of ``POOLINGS``; for a folder that says nothing: "mean".
            projection_dim: Add a new linear projection to this width (random weights).
            normalize: End with unit length, or do not; for a folder that says nothing: True.
            prompts: Replaces the folder's prompts.
            max_length: Tokens after which a text is cut; None: the smallest limit that the folder
                states.
            truncate_dim: Keep so many of the first dimensions of an embedding.
            append_eos_token: End each text with the end token; for decoders with pooling "last".
            unpad_inputs: Compute on real tokens only, where the backbone can.
            revision: Branch, tag or commit on the Hub.
            trust_remote_code: Whether Python code of the folder may run.

        Raises:
            ValueError: No such model, no weights, or a part that cannot be run here.
        """
        folder = resolve_model(str(name_or_path), revision)
        if is_classifier(folder):
            logger.warning("%s is a reranker: its scoring head is left out", name_or_path)
        stated = read_folder(folder, trust_remote_code)
        opened = open_backbone(stated.backbone, cls.backbone_task, trust_remote_code)
        missing = {name for name in opened.missing if not name.startswith("pooler.")}
        check_weights(folder, opened.backbone, missing)
        modules = stated.modules or [Pooling(width_of(opened.backbone), "mean"), Normalize()]
        modules = change_modules(modules, folder, pooling, projection_dim, normalize)
        warn_of_unknown_similarity(name_or_path, stated.settings, modules)
        model = cls(
            opened.backbone,
            end_with_eos(opened.tokenizer) if append_eos_token else opened.tokenizer,
            max_length=max_length or opened.max_length,
            unpad_inputs=unpad_inputs,
            trust_remote_code=trust_remote_code,
            prompts=read_prompts(stated.settings) if prompts is None else prompts,
            modules=modules,
            truncate_dim=truncate_dim,
            settings=stated.settings,
            do_lower_case=opened.do_lower_case,
        )
        if projection_dim is not None:
            new = next(at for at, module in enumerate(model.head) if isinstance(module, Dense))
            model.new_weights = {f"head.{new}.{name}" for name in model.head[new].state_dict()}
        return model

    @property
    def pooling(self) -> str:
        """How token states become one vector; several poolings are joined by "+"."""
        names = {theirs: ours for ours, theirs in POOLINGS.items()}
        poolings = [module for module in self.head if isinstance(module, Pooling)]
        return "+".join(names[mode] for module in poolings for mode in pooling_modes(module))

    @property
    def default_prompt(self) -> str:
        """The prompt of texts for which none is chosen: the folder's ``default_prompt_name``."""
        return self.prompts.get(self.settings.get("default_prompt_name") or "", "")

    @property
    def normalize(self) -> bool:
        """Whether embeddings have unit length."""
        return self._ends_with_unit_length and self.settings.get("truncate_dim") is None

    @property
    def similarity(self) -> Similarity:
        """What embeddings are compared by: "dot" where the folder says so, else "cosine".

        Of unit vectors the two are one and the same, which is then called the cosine.
        """
        dot = self.settings.get("similarity_fn_name") == "dot" and not self.normalize
        return "dot" if dot else "cosine"

    def compare_by(self, similarity: Similarity) -> None:
        """Compare by this similarity from now on, also where the model is saved and opened."""
        self.settings["similarity_fn_name"] = similarity

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        host_mask: HostMask | None = None,
        prompt_mask: Tensor | None = None,
        **inputs: Tensor,
    ) -> Tensor:
        """Tokens [N, L] to embeddings [N, H].

        ``host_mask`` is ``attention_mask`` on the host, ``prompt_mask`` is True at the tokens of
        prompts; None: the model's own prompts are recognised.
        """
        self.check_tokens(input_ids)
        given = {"input_ids": input_ids, "attention_mask": attention_mask, **inputs}
        modules = list(self.head)[: -1 if self._ends_with_unit_length else None]
        prompts = self._prompt_lengths(input_ids, attention_mask, prompt_mask)
        if all(type(module) in PACKABLE for module in modules):
            packs = self.token_states(host_mask=host_mask, **given)
            pooled = []
            for pack in packs:
                own = None if prompts is None else prompts[pack.texts]
                pooled.append(run_modules(modules, pack.states, pack.lengths, pack.layers, own))
            order = torch.tensor([text for pack in packs for text in pack.texts])
            embeddings = torch.cat(pooled)[to_device(order.argsort(), self.device)]
        else:  # modules of other libraries may look at neighbouring tokens: they need padding
            output = self.run_backbone(host_mask, **given)
            embeddings = run_padded(modules, given, output, prompts)
        embeddings = embeddings[:, : self.truncate_dim]
        if self._ends_with_unit_length:
            embeddings = F.normalize(embeddings.float(), dim=-1)
        return embeddings[:, : self.settings.get("truncate_dim")]

    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        **settings: Unpack[InferenceSettings],
    ) -> Tensor:
        """Embed texts: float32 [len(texts), H] on the CPU, in the order given.

        Args:
            texts: Any number of texts, none included.
            prompt: Put before each text; "": none. None: the model's own, that is the one of
                ``prompt_name``, or else of the folder's ``default_prompt_name``, if it has one.
            prompt_name: One of the model's prompts, such as "query" or "document".
            settings: ``max_length``, ``tokens_per_batch``, ``bf16``, ``show_progress``; see
                ``InferenceSettings``.

        Raises:
            ValueError: The model has no prompt of that name, or one text is given, not a list.
        """
        check_lists(texts=texts)
        if prompt is None:
            prompt = self.find_prompt(prompt_name) if prompt_name else self.default_prompt
        found = self.forward_in_batches([with_prompt(text, prompt) for text in texts], **settings)
        return found.view(len(texts), self.dimension)

    def score_pairs(
        self, queries: Sequence[str], documents: Sequence[str], **settings: Unpack[ScoreSettings]
    ) -> Tensor:
        """The ``similarity`` of each pair; see ``Encoder.score_pairs``."""
        check_pairs(queries, documents)
        asked_by = inference_settings(settings, settings.get("query_max_length"))
        found_by = inference_settings(settings, settings.get("document_max_length"))
        queries, documents = self.add_prompts(queries, documents, settings)
        asked = self.encode(queries, prompt="", **asked_by)  # [N, H]
        found = self.encode(documents, prompt="", **found_by)  # [N, H]
        return pairwise(asked, found, self.similarity)

    def architecture(self) -> dict[str, Any]:
        """See ``Encoder.architecture``: the modules, dimensions kept, similarity."""
        modules = [(type(module).__name__, module.get_config_dict()) for module in self.head]
        kept = {} if self.truncate_dim is None else {"dimensions": self.truncate_dim}
        if cut := self.settings.get("truncate_dim"):  # the folder's own, after all modules
            kept["cut"] = cut
        dot = {} if self.similarity == "cosine" else {"similarity": self.similarity}
        return {"modules": modules, **kept, **dot}

    def save_pretrained(
        self, folder: str | Path, state_dict: dict[str, Tensor] | None = None
    ) -> None:
        """Write a folder that sentence-transformers (5.1 to today's) and ``AutoModel`` load."""
        folder = Path(folder)
        state = self.state_dict() if state_dict is None else state_dict
        self.save_backbone(folder, state)
        settings = {
            "similarity_fn_name": "cosine",
            **{key: value for key, value in self.settings.items() if key not in NOT_KEPT},
        }
        limits = {"max_seq_length": self.max_length, "do_lower_case": self.do_lower_case}
        write_modules(folder, list(self.head), state, settings, self.prompts, limits)

    def _prompt_lengths(
        self, input_ids: Tensor, attention_mask: Tensor, prompt_mask: Tensor | None
    ) -> Tensor | None:
        """Tokens of each text's prompt [N], if pooling excludes prompts; else None."""
        if not self.masks_prompts:
            return None
        if prompt_mask is None:
            prompts = {prompt for prompt in self.prompts.values() if prompt}
            return prompt_lengths(self.tokenizer, prompts, input_ids, attention_mask)
        lengths = prompt_mask.sum(dim=1)
        return lengths * (lengths < attention_mask.sum(dim=1))  # else the text was cut off
