"""The multi-vector encoder (late interaction): one vector for each token, compared by MaxSim."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, Unpack

import torch
from sentence_transformers.base.modules import Dense, Module, Normalize
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from torch import Tensor, nn
from torch.nn import functional as F

from common.prompts import Side, check_lists, check_pairs, with_prompt
from common.similarity import TokenSimilarity, maxsim, token_vectors
from encoders.backbone import Encoder
from encoders.export import is_onnx
from encoders.inference import InferenceSettings, ScoreSettings, inference_settings
from encoders.modules.files import read_folder, write_modules
from encoders.modules.of_tokens import (
    TOKENS,
    at_their_places,
    check_modules,
    find_query_tokens,
    leave_out,
    new_projection,
    run_on_tokens,
)
from encoders.modules.settings import read_prompts, width_of
from encoders.opening.model_name import is_classifier, is_multi_vector, resolve_model
from encoders.opening.transformer import check_weights, open_backbone
from encoders.unpadding import HostMask, at_least_one_token, to_device

logger = logging.getLogger(__name__)

# Shapes: N texts, L tokens of the longest, T tokens of a text, H dimensions of a token's vector.
TEXTS_AT_ONCE = 2**10  # whose vectors are padded to each other
DOCUMENTS_AT_ONCE = 2**12  # whose vectors are kept while they are scored
# Keys of config_sentence_transformers.json that are not copied: they are written anew.
NOT_KEPT = ("__version__", "prompts")


class MultiVectorEncoder(Encoder):
    """A backbone, then projections of its token states and unit length, each token by itself.

    Open one with ``MultiVectorEncoder.from_pretrained``. Arguments besides those of ``Encoder``:

    Args:
        modules: sentence-transformers' modules behind the backbone, in order.
        similarity: "maxsim": for each token of a query the largest dot product with a token of the
            document, and the sum of these; "meanmaxsim": their mean.
        by_side: ``query_length``, ``document_length`` and ``query_expansion`` of the folder.
        settings: The folder's ``config_sentence_transformers.json``.
        do_lower_case: Whether the folder lower-cases texts on top of its tokenizer.
    """

    kind = "multi_vector"
    backbone_task = "feature-extraction"

    def __init__(
        self,
        *args: Any,
        modules: Sequence[Module],
        similarity: TokenSimilarity = "maxsim",
        by_side: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        do_lower_case: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.head: Any = nn.ModuleList(modules)
        self.similarity: TokenSimilarity = similarity
        self.by_side = dict(by_side or {})
        self.settings = dict(settings or {})
        self.do_lower_case = do_lower_case
        projections = [module for module in self.head if isinstance(module, Dense)]
        self.dimension: int = (  # H
            projections[-1].out_features if projections else width_of(self.backbone)
        )
        expansion = self.by_side.get("query_expansion")
        self.query_tokens = find_query_tokens(self.tokenizer, expansion)
        # Of a query whose expansion nothing attends to, states of what is masked are wanted, too.
        self._computes_padding = self.query_tokens.length > 0 and not self.query_tokens.attended
        for module in self.head:
            if isinstance(module, MultiVectorMask):
                module.resolve_with_tokenizer(self.tokenizer)
                # A buffer goes to the GPU with the model: no step has to wait for a copy.
                ids = module._skiplist_ids
                vars(module).pop("_skiplist_ids", None)
                module.register_buffer("_skiplist_ids", ids, persistent=False)
        # BERT's pooler takes no part in a token's vector, and DDP stops at unused weights.
        if getattr(self.backbone, "pooler", None) is not None:
            self.backbone.pooler.requires_grad_(False)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        projection_dim: int | None = None,
        prompts: dict[str, str] | None = None,
        max_length: int | None = None,
        unpad_inputs: bool = True,
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> Self:
        """Open a folder of sentence-transformers' ``MultiVectorEncoder``, or another's backbone.

        The vectors are then its token states, or their projection, at unit length. Arguments as in
        ``Embedder.from_pretrained``.

        Raises:
            ValueError: No such model, or a part of it cannot be run here.
        """
        folder = resolve_model(str(name_or_path), revision)
        saved = is_multi_vector(folder)
        stated = read_folder(folder, trust_remote_code, multi_vector=saved)
        if is_onnx(stated.backbone):
            raise ValueError(f"{folder}: a multi-vector encoder cannot be run as an ONNX graph")
        opened = open_backbone(stated.backbone, cls.backbone_task, trust_remote_code, saved)
        missing = {name for name in opened.missing if not name.startswith("pooler.")}
        check_weights(folder, opened.backbone, missing)
        settings, modules = stated.settings, list(stated.modules or [])
        if saved:
            check_modules(folder, modules, opened)
        else:
            if is_classifier(folder) or any(isinstance(module, Dense) for module in modules):
                logger.warning("%s: only its backbone is used, not what is behind it", name_or_path)
            modules = [MultiVectorMask(), Normalize(module_input_name=TOKENS)]
        if projection_dim is not None:
            modules = [new_projection(folder, modules, opened, projection_dim), *modules]
        by_side = dict(opened.by_side or {}) if saved else {}
        if max_length is not None:  # of all texts, in place of the folder's lengths
            by_side |= {"query_length": None, "document_length": None}
        expansion = by_side.get("query_expansion")
        mean = saved and settings.get("similarity_fn_name") == "meanmaxsim"
        model = cls(
            opened.backbone,
            opened.tokenizer,
            max_length=max_length or opened.max_length,
            # What nothing attends to is no part of a packed sequence.
            unpad_inputs=unpad_inputs and (expansion is None or expansion["attend"]),
            trust_remote_code=trust_remote_code,
            prompts=read_prompts(settings) if prompts is None else prompts,
            modules=modules,
            similarity="meanmaxsim" if mean else "maxsim",
            by_side=by_side,
            settings=settings if saved else {},
            do_lower_case=opened.do_lower_case,
        )
        model.new_weights = set() if projection_dim is None else {"head.0.linear.weight"}
        return model

    @property
    def normalize(self) -> bool:
        """Whether the vectors have unit length."""
        rest = [module for module in self.head if not isinstance(module, MultiVectorMask)]
        return bool(rest) and isinstance(rest[-1], Normalize)

    def compare_by(self, similarity: TokenSimilarity) -> None:
        """Compare by this similarity from now on, also where the model is saved and opened."""
        self.similarity = similarity

    def replace_lengths(self, query: int | None, document: int | None) -> None:
        """Replace the model's own lengths of queries and documents; None keeps one."""
        if query is not None:
            self.by_side["query_length"] = self.find_length("query", query)
        if document is not None:
            self.by_side["document_length"] = document

    def find_length(self, side: Side, asked: int | None = None) -> int:
        """Tokens after which a query, or a document, is cut; raises as ``Encoder.find_length``."""
        own: int | None = asked or self.by_side.get(f"{side}_length")
        expansion = self.by_side.get("query_expansion")
        if side == "document" or expansion is None:
            return own or self.max_length
        length, fixed = int(expansion["length"]), expansion["strategy"] == "fixed"
        if asked is not None and (asked < length or (fixed and asked > length)):
            raise ValueError(
                f"query_max_length: queries of this model have {'' if fixed else 'at least '}"
                f"{length} tokens (query_expansion), got {asked}; leave it out"
            )
        # A limit of all texts is not raised to it: such a query is cut, and expanded all the same.
        return length if fixed else max(own, length) if own else self.max_length

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        host_mask: HostMask | None = None,
        query_mask: HostMask | None = None,
        prompt_mask: Tensor | None = None,
        **inputs: Tensor,
    ) -> Tensor:
        """Tokens [N, L] to the vectors that ``token_vectors`` describes: [N, L + 1, H + 1].

        ``host_mask`` is ``attention_mask`` on the host; so is ``query_mask``: True at the tokens of
        queries, expanded ones included. None: all texts are documents. ``prompt_mask`` is of no
        account: tokens of prompts count like others.
        """
        self.check_tokens(input_ids)
        mask = attention_mask.cpu() if host_mask is None else torch.from_numpy(host_mask)
        given = {"input_ids": input_ids, **inputs}
        computed, order = at_least_one_token(mask.bool()), list(range(len(mask)))
        if self._computes_padding:
            real = at_least_one_token(attention_mask)
            output = self.run_backbone(host_mask, attention_mask=real, **given)
            states = output.last_hidden_state.flatten(0, 1)
            computed = torch.ones_like(computed)
        else:
            packs = self.token_states(attention_mask, host_mask, **given)
            states = torch.cat([pack.states for pack in packs])
            order = [text for pack in packs for text in pack.texts]
        vectors = at_their_places(run_on_tokens(self.head, states), computed, order)
        asked = torch.zeros_like(computed) if query_mask is None else torch.from_numpy(query_mask)
        is_query = to_device(asked.any(dim=1), self.device)
        scored = to_device(asked | mask.bool(), self.device)
        scored = leave_out(self.head, scored, input_ids, is_query)
        # The last position of each text does not count.
        return token_vectors(F.pad(vectors, (0, 0, 0, 1)), F.pad(scored, (0, 1)), is_query)

    def encode(
        self,
        texts: Sequence[str],
        *,
        side: Side,
        prompt: str | None = None,
        **settings: Unpack[InferenceSettings],
    ) -> list[Tensor]:
        """Embed the tokens of texts: for each text float32 [T, H] on the CPU, in the order given.

        Args:
            texts: Any number of texts, none included.
            side: Whether they are read as queries ("query") or as documents ("document").
            prompt: Put before each text; "": none. None: the model's own of the side.
            settings: As in ``InferenceSettings``.
        """
        check_lists(texts=texts)
        prompt = self.find_prompt(side) if prompt is None else prompt
        settings["max_length"] = self.find_length(side, settings.get("max_length"))
        given, is_query = [with_prompt(text, prompt) for text in texts], side == "query"
        expansion, found = self.query_tokens if is_query else None, list[Tensor]()
        for block in self.forward_in_blocks(
            given, texts_at_once=TEXTS_AT_ONCE, query_tokens=expansion, **settings
        ):
            of_block: dict[int, Tensor] = {}
            for places, output in block:
                rows = output.cpu()
                kept = rows[..., -1] == float(is_query)
                own = [row[counts, :-1] for row, counts in zip(rows, kept, strict=True)]
                of_block |= zip(places, own, strict=True)
            found += [of_block[at] for at in range(len(of_block))]
        return found

    def score_pairs(
        self, queries: Sequence[str], documents: Sequence[str], **settings: Unpack[ScoreSettings]
    ) -> Tensor:
        """MaxSim of each pair; see ``Encoder.score_pairs``. Each different text is read once."""
        check_pairs(queries, documents)
        asked_by = inference_settings(settings, settings.get("query_max_length"))
        found_by = inference_settings(settings, settings.get("document_max_length"))
        queries, documents = self.add_prompts(queries, documents, settings)
        asked, places = list(dict.fromkeys(queries)), defaultdict(list)
        encoded = self.encode(asked, side="query", prompt="", **asked_by)
        vectors = dict(zip(asked, encoded, strict=True))
        for at, document in enumerate(documents):
            places[document].append(at)
        different, scores = list(places), torch.zeros(len(documents))
        for start in range(0, len(different), DOCUMENTS_AT_ONCE):
            block = different[start : start + DOCUMENTS_AT_ONCE]
            encoded = self.encode(block, side="document", prompt="", **found_by)
            for text, own in zip(block, encoded, strict=True):
                for at in places[text]:
                    scores[at] = maxsim(vectors[queries[at]], own, self.similarity)
        return scores

    def architecture(self) -> dict[str, Any]:
        """See ``Encoder.architecture``: modules, query expansion, similarity."""
        modules = [(type(module).__name__, module.get_config_dict()) for module in self.head]
        expansion = self.by_side.get("query_expansion")
        return {"modules": modules, "expansion": expansion, "similarity": self.similarity}

    def save_pretrained(
        self, folder: str | Path, state_dict: dict[str, Tensor] | None = None
    ) -> None:
        """Write a folder that sentence-transformers (6.2) opens as a ``MultiVectorEncoder``."""
        folder = Path(folder)
        state = self.state_dict() if state_dict is None else state_dict
        self.save_backbone(folder, state)
        settings = {
            **{key: value for key, value in self.settings.items() if key not in NOT_KEPT},
            "model_type": "MultiVectorEncoder",
            "similarity_fn_name": self.similarity,
        }
        limits = {"max_seq_length": self.max_length, "do_lower_case": self.do_lower_case}
        limits |= {name: value for name, value in self.by_side.items() if value is not None}
        write_modules(folder, list(self.head), state, settings, self.prompts, limits)
