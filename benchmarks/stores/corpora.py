"""What the stores are filled with: synthetic documents, or a user's own. Vectors lie in a file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from common.similarity import for_dot_product
from encoders import Embedder
from evaluation import InferenceSettings, Qrels, read_beir
from evaluation.search.exact import search
from stores.documents import corpus_files, read_documents
from stores.embedding import TextEmbedder
from stores.filters import parse_filter
from stores.indexing import chunks
from stores.store import Document, Vectors

# Shapes: N documents, Q queries, H dimensions of a vector.

BLOCK = 4096  # documents that are written at once, as by scripts/index.py
H = 384
CENTRES = 1000
NOISE = 1.0  # the length of what is added to a centre
VOCABULARY, WORDS = 50_000, 40  # of all documents, of each
# Each passes a tenth of the documents.
FILTERS = {
    "lang": parse_filter({"lang": "zh"}),
    "year": parse_filter({"year": {"gte": 2023}}),
}
Found = dict[str, dict[str, float]]  # query -> its documents and their scores


@dataclass(frozen=True)
class Corpus:
    """Documents, their vectors, and queries.

    Args:
        folder: Where the vectors lie.
        rows: N.
        queries: Their vectors [Q, H].
        texts: Their words, by their ids.
        files: Of a user's documents; none: they are synthetic.
        qrels: The user's judgements.
    """

    folder: Path
    rows: int
    queries: Vectors
    texts: dict[str, str]
    files: Sequence[Path] = ()
    qrels: Qrels = field(default_factory=dict)

    def documents(self) -> Iterator[list[Document]]:
        """Blocks of documents; language and year are drawn."""
        given = read_documents(self.files) if self.files else None
        for start in range(0, self.rows, BLOCK):
            count = min(BLOCK, self.rows - start)
            rng = np.random.default_rng([1, start])
            languages = rng.choice(["en", "de", "zh"], count, p=[0.6, 0.3, 0.1]).tolist()
            years = rng.integers(2005, 2025, count).tolist()
            if given is None:
                texts = drawn_texts(rng, count)
                named = [(f"d{start + at}", text) for at, text in enumerate(texts)]
            else:
                named = [(each.id, each.text) for each in islice(given, count)]
            yield [
                Document(name, text, {"lang": lang, "year": year})
                for (name, text), lang, year in zip(named, languages, years, strict=True)
            ]

    def vectors(self, dimensions: int) -> Iterator[Vectors]:
        """Blocks of vectors, cut to their first dimensions."""
        width = self.queries.shape[1]
        for start in range(0, self.rows, BLOCK):
            count = min(BLOCK, self.rows - start) * width
            block = np.fromfile(
                self.folder / "vectors", np.float32, count, offset=4 * start * width
            )
            yield cut(block.reshape(-1, width), dimensions)

    def best(self, dimensions: int, k: int) -> dict[str, Found]:
        """The k best documents of each query, by exact search: of all, and of each filter's."""
        ids, passing = list[str](), dict[str, list[bool]]()
        for block in self.documents():
            ids += [each.id for each in block]
            passing.setdefault("dense", []).extend([True] * len(block))
            passing.setdefault("lang", []).extend(d.metadata["lang"] == "zh" for d in block)
            passing.setdefault("year", []).extend(d.metadata["year"] >= 2023 for d in block)
        queries = torch.from_numpy(cut(self.queries, dimensions))
        found = {}
        for name, mask in passing.items():
            kept, places = np.array(mask), range(0, self.rows, BLOCK)
            blocks = (
                vectors[kept[start : start + BLOCK]]
                for start, vectors in zip(places, self.vectors(dimensions), strict=True)
            )
            of = [each for each, passes in zip(ids, mask, strict=True) if passes]
            found[name] = search(queries, blocks, of, k, query_ids=list(self.texts))
        return found


def cut(vectors: Vectors, dimensions: int) -> Vectors:
    """The first dimensions of vectors, at unit length again; all of them: as they are."""
    if dimensions == vectors.shape[1]:
        return vectors
    return unit(vectors[:, :dimensions])


def unit(vectors: Vectors) -> Vectors:
    """Vectors at unit length."""
    found: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def synthetic(folder: Path, rows: int, queries: int) -> Corpus:
    """Draw a corpus: unit vectors around centres, texts of words with a Zipf distribution.

    What is added to a centre has a few large and many small components, as embeddings have.
    """
    rng = np.random.default_rng(0)
    centres = unit(rng.standard_normal((CENTRES, H), np.float32))
    spectrum = np.arange(1, H + 1) ** -0.5
    spectrum *= NOISE / np.linalg.norm(spectrum)
    axes = np.linalg.qr(rng.standard_normal((H, H)))[0]
    spread = (spectrum[:, None] * axes).astype(np.float32)

    def draw(count: int) -> Vectors:
        noise = rng.standard_normal((count, H), np.float32) @ spread
        return unit(centres[rng.integers(CENTRES, size=count)] + noise)

    asked = draw(queries)
    texts = [" ".join(list(dict.fromkeys(text.split()))[:3]) for text in drawn_texts(rng, queries)]
    with (folder / "vectors").open("wb") as file:
        for start in range(0, rows, BLOCK):
            draw(min(BLOCK, rows - start)).tofile(file)
    return Corpus(folder, rows, asked, {f"q{at}": text for at, text in enumerate(texts)})


def drawn_texts(rng: np.random.Generator, count: int) -> list[str]:
    """Texts in which the n-th most frequent word is as frequent as 1 / n."""
    shares: NDArray[np.float64] = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
    numbers = np.searchsorted(shares, rng.random((count, WORDS)) * shares[-1]).tolist()
    return [" ".join(f"w{number}" for number in text) for text in numbers]


def embedded(folder: Path, data: str, model: str) -> Corpus:
    """A BEIR folder, and its vectors by an embedder."""
    given, files = read_beir(data), corpus_files([data])
    embedder = Embedder.from_pretrained(model)
    rows = 0
    with (folder / "vectors").open("wb") as file:
        for block in chunks(read_documents(files), BLOCK):
            texts = [each.text for each in block]
            np.asarray(TextEmbedder(embedder, InferenceSettings()).documents(texts)).tofile(file)
            rows += len(block)
    texts = list(given.prompted(embedder.find_prompt("query")).values())
    asked = for_dot_product(embedder.encode(texts, prompt=""), embedder.similarity).numpy()
    return Corpus(folder, rows, asked, given.queries, files, given.qrels)
