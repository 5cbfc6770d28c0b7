"""Working folder of a run: found again after a kill, removed when the run has finished."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
from accelerate import PartialState
from filelock import FileLock, Timeout

from common.hashing import source_code
from mining.data.corpus import Corpus, CorpusBuilder
from mining.data.documents import Document


def default_cache_dir() -> Path:
    """Return the default folder of vectors, scores and unfinished runs."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "tandem" / "mining"


@contextmanager
def work_folder(cache_dir: Path, identity: Any) -> Iterator[Path]:
    """Enter the folder of one run, the same for all its processes.

    Args:
        cache_dir: Where runs have their folders.
        identity: All that decides about the run; a run that was killed is known by it again.

    Raises:
        ValueError: The same run is at work already.
    """
    digest = hashlib.blake2b(json.dumps(identity, default=str).encode(), digest_size=16)
    for code in source_code(Path(__file__).parent):
        digest.update(code)
    folder = cache_dir / "runs" / digest.hexdigest()
    if not PartialState().is_main_process:
        yield folder
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError("the same run is already in progress; wait for it or stop it") from None
    with lock:
        yield folder
        shutil.rmtree(folder)
    Path(f"{folder}.lock").unlink(missing_ok=True)


def build_corpus(
    folder: Path, documents: Iterable[Document], positives: Iterable[Document]
) -> tuple[Corpus, list[str]]:
    """Build the corpus of a run in its main process; collective: all processes call it.

    Args:
        folder: Where to; what is there from before a kill is used.
        documents: May become negatives.
        positives: Documents that must be known beside them.

    Returns:
        The corpus, and what is to be said about its making.

    Raises:
        ValueError: There is no document.
    """
    state = PartialState()
    notes = folder / "notes.json"
    if state.is_main_process and not folder.exists():
        beside = folder.with_name(f"{folder.name}.building")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        said = _fill(CorpusBuilder(beside), documents, positives)
        (beside / notes.name).write_text(json.dumps(said), encoding="utf-8")
        beside.rename(folder)
    state.wait_for_everyone()
    return Corpus(folder), json.loads(notes.read_text(encoding="utf-8"))


def _fill(
    builder: CorpusBuilder, documents: Iterable[Document], positives: Iterable[Document]
) -> list[str]:
    count = empty = 0
    for document in documents:
        count += 1
        if document.text:
            builder.add(document.text, document.id)
        else:
            empty += 1
    if count == empty:
        raise ValueError("the corpus has no document with a text")
    builder.close_search()
    for document in positives:
        builder.add(document.text, document.id)
    builder.finish()
    return [f"{empty:,} documents of the corpus have no text and are left out"] if empty else []
