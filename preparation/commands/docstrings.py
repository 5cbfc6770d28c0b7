"""Generate pairs, groups and a held-out set from docstrings, split by module.

Writes train_pairs.jsonl, train_groups.jsonl, train_scored.jsonl, dev_pairs.jsonl,
dev_groups.jsonl, and in the BEIR layout heldout/corpus.jsonl, heldout/queries.jsonl and
heldout/qrels/test.tsv.

    python scripts/prepare_data.py docstrings --output_dir data/docstrings
    python scripts/prepare_data.py docstrings --output_dir data/maths \\
        --packages scipy sympy networkx --heldout_size 300 --dev_size 100
    python scripts/prepare_data.py docstrings --output_dir data/ours --source src/ours
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from common.flags import option
from loaders.formats.row_file import as_json, write_lines
from preparation.beir import BeirFolder
from preparation.commands.settings import OutputSettings
from preparation.docstrings.corpus import Part, deduplicate, hard_negatives, split_by_topic
from preparation.docstrings.pairs import PACKAGES, DocstringPair, locate, read_file, source_files
from preparation.docstrings.text import MAX_DOCUMENT_CHARACTERS

FILES = (
    *("train_pairs.jsonl", "train_groups.jsonl", "train_scored.jsonl"),
    *("dev_pairs.jsonl", "dev_groups.jsonl"),
    *("heldout/corpus.jsonl", "heldout/queries.jsonl", "heldout/qrels/test.tsv"),
)


@dataclass(kw_only=True)
class DocstringsSettings(OutputSettings):
    """Training data from the docstrings of installed packages or of a folder."""

    packages: list[str] | None = option(
        None, f"Top-level packages to read, or stdlib; null: {' '.join(PACKAGES)}."
    )
    source: list[str] = option(
        [], "Folders of source files to read, instead of the default packages."
    )
    num_negatives: int = option(7, "Hard negatives of each query.", least=1)
    heldout_size: int = option(
        1200, "About how many queries to hold out, with all of their modules.", least=1
    )
    dev_size: int = option(
        400, "About how many pairs to keep for validation, of other modules still.", least=1
    )
    seed: int = option(42, "Decides which modules are held out, and which negatives are drawn.")


def run(args: DocstringsSettings) -> None:
    """Read, split and write."""
    args.check_output(FILES)
    dropped: Counter[str] = Counter()
    sources = _sources(args.packages, args.source)
    files = [(name, *file) for name, root in sources for file in source_files(root, name)]
    found: list[DocstringPair] = []
    for package, module, path in tqdm(files, desc="reading source files", unit="file"):
        found += read_file(package, module, path, dropped)
    pairs = deduplicate(found, dropped) if found else []
    parts = split_by_topic(pairs, args.heldout_size, args.dev_size, args.seed)
    for part in ("train", "dev"):
        _write_training(args.output_dir, part, parts[part], args.num_negatives, args.seed)
    with BeirFolder(args.output_dir / "heldout", ["test"]) as heldout:
        for pair in parts["heldout"]:
            # BEIR's own evaluation skips documents with the query's id, so the two ids differ.
            query_id = f"q:{pair.name}"
            heldout.add_document(pair.name, pair.document)
            heldout.add_query(query_id, pair.query)
            heldout.judge("test", query_id, pair.name, 1)
    _print_summary(args.output_dir, parts, dropped)


def _sources(packages: Sequence[str] | None, folders: Sequence[str]) -> list[tuple[str, Path]]:
    """Return (name, folder or file) of all sources. Default packages may be absent."""
    found: list[tuple[str, Path]] = []
    for folder in folders:
        if not Path(folder).is_dir():
            raise ValueError(f"source: {folder} is not a folder")
        found.append((Path(folder).resolve().name, Path(folder)))
    absent = []
    for package in packages or (() if folders else PACKAGES):
        if root := locate(package):
            found.append((package, root))
        else:
            absent.append(package)
    if absent and packages:
        raise ValueError(f"packages: {', '.join(absent)} is not installed; leave it out")
    if absent:
        print(f"not installed, left out: {', '.join(absent)}")
    return found


def _write_training(
    output_dir: Path, part: Part, pairs: list[DocstringPair], negatives: int, seed: int
) -> None:
    """Write pairs and groups of one part; for training also the groups as scored rows, 1 and 0."""
    mined = hard_negatives(pairs, negatives, seed)
    groups: list[dict[str, Any]] = [
        {"query": pair.query, "pos": [pair.document], "neg": found}
        for pair, found in zip(pairs, tqdm(mined, f"{part} negatives", len(pairs)), strict=True)
    ]
    positives = [{"query": pair.query, "pos_doc": pair.document} for pair in pairs]
    write_lines(output_dir / f"{part}_pairs.jsonl", map(as_json, positives))
    write_lines(output_dir / f"{part}_groups.jsonl", map(as_json, groups))
    if part == "train":
        scored = (
            {"query": group["query"], "doc": doc, "rel": rel, "weight": 1.0}
            for group in groups
            for rel, docs in ((1.0, group["pos"]), (0.0, group["neg"]))
            for doc in docs
        )
        write_lines(output_dir / "train_scored.jsonl", map(as_json, scored))


def _print_summary(
    output_dir: Path, parts: dict[Part, list[DocstringPair]], dropped: Counter[str]
) -> None:
    counts = {part: Counter(pair.package for pair in pairs) for part, pairs in parts.items()}
    print(f"{'package':<24}" + "".join(f"{part:>9}" for part in parts))
    for package in dict.fromkeys(pair.package for pairs in parts.values() for pair in pairs):
        print(f"{package:<24}" + "".join(f"{count[package]:>9}" for count in counts.values()))
    print(f"{'total':<24}" + "".join(f"{count.total():>9}" for count in counts.values()))
    pairs = [pair for part in parts.values() for pair in part]
    query_words = median(len(pair.query.split()) for pair in pairs)
    document_words = median(len(pair.document.split()) for pair in pairs)
    print(f"median length: query {query_words:g} words, document {document_words:g} words")
    shortened = sum(pair.shortened for pair in pairs)
    print(f"documents cut at {MAX_DOCUMENT_CHARACTERS} characters: {shortened}")
    print("left out: " + "; ".join(f"{count} {reason}" for reason, count in dropped.most_common()))
    for pair in parts["train"][:: -(-len(parts["train"]) // 3)]:
        print(f"\n{pair.name}\n  query     {pair.query}")
        print(f"  document  {' '.join(pair.document.split())[:160]}")
    print(f"\nwritten to {output_dir}: {', '.join(FILES)}")
