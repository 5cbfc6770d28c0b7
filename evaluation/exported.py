"""Compare an exported model with its source: size, speed, metric, agreement of outputs."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from encoders.export.onnx_backbone import ONNX_FILE
from encoders.kinds import Kind, detect_kind, retrieves, shown
from encoders.opening.source import resolve_model
from evaluation.data.sets import PairData
from evaluation.measure import Measure, Model, measure_ranking
from evaluation.metrics.pairs import Figure, pair_statistics
from evaluation.settings import Data, EvaluationSettings, find_first_stage, how, open_model

COMPARED = 256  # documents


class Worth(NamedTuple):
    """Size, speed and main metric of a model."""

    size: float  # MB of weights, or of the graph
    rate: float  # documents (or pairs with a query) a second
    metric: str
    value: float


class Agreement(NamedTuple):
    """What a model and the exported one are worth, and how alike their outputs are.

    Attributes:
        worth: Of the model, and of the exported one.
        documents: How many were encoded or scored by both.
        least: The lowest cosine of two embeddings of a document, or 1 - the largest difference of
            two scores.
    """

    worth: tuple[Worth, Worth]
    documents: int
    least: float


def compare_exported(model: str, exported: Path, data: Data, args: EvaluationSettings) -> Agreement:
    """Run both models on a CPU, one after the other.

    Raises:
        ValueError: The metric is undefined on the data.
    """
    kind = detect_kind(model)
    run = measurement(args, kind, data)
    opened: list[Model] = [
        open_model(name, kind, args).to("cpu") for name in (model, str(exported))
    ]
    queries, documents = example(data)
    answers = [answer(each, queries, documents) for each in opened]
    worth = []
    for each, folder in zip(opened, (resolve_model(model), exported), strict=True):
        begun = time.perf_counter()
        answer(each, queries, documents)
        rate = len(documents) / (time.perf_counter() - begun)
        worth.append(Worth(size(folder), rate, *run(each)))
    return Agreement((worth[0], worth[1]), len(documents), least_agreement(*answers))


def measurement(
    args: EvaluationSettings, kind: Kind, data: Data
) -> Callable[[Model], tuple[str, float]]:
    """Return the function that measures a model: the name and value of its main metric."""
    if isinstance(data, PairData):
        name = next(iter(pair_statistics(data.judged())))
        return lambda model: one_figure(Measure(data, [name], how(args))(model))
    first = find_first_stage(args, kind, data)

    def run(model: Model) -> tuple[str, float]:
        return one_figure(measure_ranking(model, data, args.metrics, how(args), first).means())

    return run


def one_figure(figures: dict[str, Figure]) -> tuple[str, float]:
    """The name and value of the first metric.

    Raises:
        ValueError: It has no value, so that two models cannot be compared by it.
    """
    name, value = next(iter(figures.items()))
    if isinstance(value, str):
        raise ValueError(f"data: {name} is undefined on it ({value}); give other data")
    return name, value


def example(data: Data) -> tuple[list[str], list[str]]:
    """Documents with queries to go with them, as many of each."""
    if isinstance(data, PairData):
        return data.queries[:COMPARED], data.documents[:COMPARED]
    documents = list(data.documents.values())[:COMPARED]
    queries = list(data.queries.values())
    return [queries[at % len(queries)] for at in range(len(documents))], documents


def answer(model: Model, queries: list[str], documents: list[str]) -> torch.Tensor:
    """Embeddings of documents [N, H], or scores of pairs [N]."""
    if retrieves(model):
        return model.encode(documents, prompt_name="document")
    return torch.from_numpy(shown(model, model.score_pairs(queries, documents).numpy()))


def least_agreement(one: torch.Tensor, other: torch.Tensor) -> float:
    """The lowest cosine of embeddings, or 1 - the largest difference of scores."""
    if one.dim() == 2:
        return float(torch.cosine_similarity(one, other, dim=-1).min())
    return 1 - float((one - other).abs().max())


def size(folder: Path) -> float:
    """MB of what holds a model's weights."""
    graph = folder / ONNX_FILE
    files = [graph] if graph.is_file() else list(folder.glob("*.safetensors"))
    return sum(file.stat().st_size for file in files) / 1e6
