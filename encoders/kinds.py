"""The kinds of model, one row each. No other file asks which kind a model is.

A kind is how a model is built and saved, a role its stage in search, an evaluation task what it is
judged on.

To add one: write its class (an ``Encoder``) and add its row here. What can be trained with it
stands in ``trainers/objectives.py``; the code in its card, in ``trainers/model_card/code.py``.
"""

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from encoders.backbone import Encoder
from encoders.embedder import Embedder
from encoders.multi_vector import MultiVectorEncoder
from encoders.opening.model_name import (
    is_classifier,
    is_multi_vector,
    resolve_model,
    warn_if_not_best,
)
from encoders.reranker import Reranker

Kind = Literal["embedder", "reranker", "multi_vector"]
VectorModel = Embedder | MultiVectorEncoder
Float = TypeVar("Float", bound=np.floating[Any])


class ModelKind(NamedTuple):
    """What the project knows of a kind of model.

    Args:
        model: Its class.
        is_saved_in: Whether a folder holds such a model; the first row that says so has it.
        port: Of a server that has this kind alone.
        info: What ``/info`` says beside what it says of every model, in the words of
            text-embeddings-inference where it has some.
        summary: The first sentence of the model card.
        pipeline_tag: Of the Hub.
        tags: Of the Hub, beside those of the run.
        hub_tasks: Evaluation task -> type and name of the result in the card's model-index.
        labels: What reports call it, by language.
        retrieves: Whether it searches a corpus, with one vector per text (``Embedder.encode``);
            else it puts in order what a first stage has found.
        reads_pairs: Whether one forward reads query and document together; else each alone.
        logits: Whether ``score_pairs`` gives logits, which are shown through the sigmoid; else
            similarities, which are shown as they are.
        library: Of the Hub; ``library_name`` in the card.
    """

    model: type[Encoder]
    is_saved_in: Callable[[Path], bool]
    port: int
    info: Callable[[Any], dict[str, Any]]
    summary: str
    pipeline_tag: str
    tags: tuple[str, ...]
    hub_tasks: dict[str, tuple[str, str]]
    labels: dict[str, str]
    retrieves: bool = False
    reads_pairs: bool = False
    logits: bool = False
    library: str = "sentence-transformers"

    @property
    def evaluation_task(self) -> Literal["retrieval", "reranking"]:
        """What it is evaluated on, unless the data are scored pairs."""
        return "retrieval" if self.retrieves else "reranking"

    @property
    def role(self) -> Literal["embedder", "reranker"]:
        """Its stage in search: the first finds documents, the second orders them.

        Kinds that do the same work have the same role, by which a server knows its models.
        """
        return "embedder" if self.retrieves else "reranker"


def _embedder_info(model: Embedder) -> dict[str, Any]:
    return {
        "model_type": {"embedding": {"pooling": model.pooling}},
        "dim": model.dimension,
        "normalized": model.normalize,
        "similarity": model.similarity,
        "score_range": [-1, 1] if model.similarity == "cosine" else None,
    }


def _reranker_info(model: Encoder) -> dict[str, Any]:
    labels = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    return {
        "model_type": {"reranker": labels},
        "similarity": "sigmoid of the logit",
        "score_range": [0, 1],
    }


def _multi_vector_info(model: MultiVectorEncoder) -> dict[str, Any]:
    bounded = model.normalize and model.similarity == "meanmaxsim"
    return {
        **_reranker_info(model),
        "dim": model.dimension,
        "normalized": model.normalize,
        "similarity": model.similarity,
        "score_range": [-1, 1] if bounded else None,
    }


KINDS: dict[Kind, ModelKind] = {
    "reranker": ModelKind(
        model=Reranker,
        is_saved_in=is_classifier,
        port=8002,
        info=_reranker_info,
        summary="A reranker: it gives a query and a document a score from 0 to 1",
        pipeline_tag="text-ranking",
        tags=("cross-encoder", "reranker"),
        hub_tasks={
            "reranking": ("cross-encoder-reranking", "Reranking"),
            "pairs": ("cross-encoder-correlation", "Scores of judged pairs"),
        },
        labels={"en": "reranker", "zh": "重排模型"},
        reads_pairs=True,
        logits=True,
    ),
    "multi_vector": ModelKind(
        model=MultiVectorEncoder,
        is_saved_in=is_multi_vector,
        port=8003,
        info=_multi_vector_info,
        summary="A multi-vector encoder (late interaction): it turns a text into one vector for "
        "each token, and the best matches of a query's tokens add up to a score (MaxSim)",
        pipeline_tag="feature-extraction",
        tags=("multi-vector", "late-interaction", "ColBERT"),
        hub_tasks={
            "reranking": ("reranking", "Reranking"),
            "pairs": ("semantic-similarity", "Scores of judged pairs"),
        },
        labels={"en": "multi-vector encoder", "zh": "后期交互模型"},
    ),
    # Last: whatever no other row claims, a plain backbone included, can be trained as an embedder.
    "embedder": ModelKind(
        model=Embedder,
        is_saved_in=lambda folder: True,
        port=8001,
        info=_embedder_info,
        summary="An embedder: it turns texts into vectors that are alike where the texts match",
        pipeline_tag="sentence-similarity",
        tags=("feature-extraction", "embedder"),
        hub_tasks={
            "retrieval": ("information-retrieval", "Information retrieval"),
            "pairs": ("semantic-similarity", "Semantic similarity"),
        },
        labels={"en": "embedder", "zh": "向量模型"},
        retrieves=True,
    ),
}


def detect_kind(name_or_path: str | Path, revision: str | None = None) -> Kind:
    """The kind of a saved model; arguments and errors as in ``resolve_model``."""
    return kind_of_folder(resolve_model(str(name_or_path), revision))


def kind_of_folder(folder: Path) -> Kind:
    """The kind of a model in a local folder, whose weights need not be there."""
    return next(kind for kind, row in KINDS.items() if row.is_saved_in(folder))


def open_model(name_or_path: str | Path, kind: Kind | None = None, **settings: Any) -> Encoder:
    """Open a model of any kind.

    Args:
        name_or_path: A folder, a name on the Hub, or ``package://<module>/<path>``.
        kind: Open it as this kind; None: as the kind it was saved as.
        settings: Of the classes' ``from_pretrained``. None and False are as if they were not given,
            so that a script can pass all its flags.

    Raises:
        ValueError: There is no such model, it cannot be opened so, or its kind has no such setting.
    """
    kind = kind or detect_kind(name_or_path, settings.get("revision"))
    opens = KINDS[kind].model.from_pretrained
    known = signature(opens).parameters
    taken = {name: value for name, value in settings.items() if name in known}
    for name in settings.keys() - taken.keys():
        if settings[name] is not None and settings[name] is not False:
            raise ValueError(f"{name}: {name_or_path} is of kind {kind}, which has no such setting")
    warn_if_not_best(str(name_or_path))
    return opens(name_or_path, **taken)


def kind_of(model: Encoder) -> ModelKind:
    """The row of an open model."""
    return next(row for kind, row in KINDS.items() if kind == model.kind)


def retrieves(model: Encoder) -> TypeGuard[Embedder]:
    """Whether a model searches a corpus, and so has all that an ``Embedder`` has."""
    return kind_of(model).retrieves


def makes_vectors(model: Encoder) -> TypeGuard[VectorModel]:
    """Whether a model turns each text alone into a vector or several, which a store can keep."""
    return not kind_of(model).reads_pairs


def displayed_scores(model: Encoder, scores: NDArray[Float]) -> NDArray[Float]:
    """The scores [N] of ``model.score_pairs`` on the scale that users see.

    Near its ends the sigmoid makes ties of scores that differ: put pairs in order before.
    """
    bounded: NDArray[Float] = expit(scores) if kind_of(model).logits else scores
    return bounded
