"""A guide model's embeddings of the texts of a run, which say what is a false negative."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from accelerate import PartialState
from torch import Tensor
from tqdm import tqdm

from common.hashing import text_hash
from common.prompts import prompt_of, with_prompt
from common.text_digest import text_keys
from encoders.kinds import KINDS, detect_kind, open_model, retrieves
from encoders.opening.bf16_weights import place_for_inference
from encoders.opening.model_digest import model_digest
from mining.cache.vectors import VectorCache
from mining.search.encode import EncodingSettings, cache_key, encode_block
from mining.settings import CACHE_DIR

Side = Literal["query", "document"]

ROWS_AT_ONCE = 256  # whose texts are encoded together


@dataclass(frozen=True)
class GuideEmbeddings:
    """Looks embeddings up in the cache that ``encode_texts`` has filled.

    Args:
        cache: Of the guide model.
        prompts: What it is given before queries and documents.
    """

    cache: VectorCache
    prompts: dict[Side, str]

    def __call__(self, side: Side, texts: Iterable[str]) -> Tensor:
        """The embeddings of N texts [N, G]; their dot products are the guide's similarities."""
        places = self.cache.find(text_keys(with_prompt(text, self.prompts[side]) for text in texts))
        assert (places >= 0).all()
        return torch.from_numpy(self.cache.take(places))


def encode_texts(
    guide: str, rows: Sequence[Any], bf16: bool = False, trust_remote_code: bool = False
) -> GuideEmbeddings:
    """Encode the texts of ``positive_pair`` rows by a guide model; what is cached is not again.

    Collective: the processes of a run call it together and share the work.

    Args:
        guide: A folder, a name on the Hub or ``package://<module>/<path>``. Its own prompts and
            maximum length are used.
        rows: Of training, of evaluation, ...
        bf16: Compute in bf16 where the hardware supports it.
        trust_remote_code: Let Python code of the guide's folder run.

    Raises:
        ValueError: It is no embedder, or a vector is not finite.
    """
    if (kind := detect_kind(guide)) != "embedder":
        label = KINDS[kind].labels["en"]
        raise ValueError(f"guide_model: {guide} is a {label}; give an embedder")
    model = open_model(guide, trust_remote_code=trust_remote_code)
    assert retrieves(model)
    state = PartialState()
    model = place_for_inference(model, state.device)
    prompts: dict[Side, str] = {side: model.find_prompt(side) for side in ("query", "document")}
    encoding = EncodingSettings(bf16=bf16)
    cache = VectorCache(
        CACHE_DIR / "vectors" / cache_key(model, model_digest(model), encoding), model.dimension
    )
    seen: set[int] = set()  # what was encoded here is not visible in the cache at once
    with cache:
        for own in rows:
            blocks = range(0, len(own), ROWS_AT_ONCE)
            mine = blocks[state.process_index :: state.num_processes]
            for start in tqdm(mine, f"texts for {guide}", disable=not state.is_main_process):
                some = [own[at] for at in range(start, min(start + ROWS_AT_ONCE, len(own)))]
                given = (text for row in some for text in _texts(row, prompts))
                hashes = {text_hash(prompt_of(text), text): text for text in given}
                texts = [text for key, text in hashes.items() if key not in seen]
                seen |= hashes.keys()
                encode_block(model, texts, text_keys(texts), cache, encoding, "texts")
    state.wait_for_everyone()
    cache.refresh()
    return GuideEmbeddings(cache, prompts)


def _texts(row: dict[str, Any], prompts: dict[Side, str]) -> Iterable[str]:
    yield with_prompt(row["query"], prompts["query"])
    for text in (row["pos_doc"], *row["negatives"]):
        yield with_prompt(text, prompts["document"])
