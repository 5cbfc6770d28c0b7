"""Versions: models that are served together, with the documents that they search.

One is live: it answers whoever asks for no other. The others stand beside it, before they go live
or after. A request keeps to one version from its beginning to its end.
"""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from itertools import count
from threading import Thread

import numpy as np
import torch

from common.prompts import with_prompt
from serving.engine.job import Job
from serving.engine.model import ServedModel
from serving.engine.similarity import Corpus
from serving.http.errors import ServingError
from serving.stored_corpus import StoredCorpus

logger = logging.getLogger(__name__)

UNLOAD_EVERY = 0.05  # seconds
BLOCK = 1024  # texts of the corpus that are tokenized and queued at once
_held: ContextVar["Version | None"] = ContextVar("version", default=None)


class Version:
    """Models by role ("embedder", ...), and the documents that the embedder has embedded.

    Args:
        name: Of the version.
        models: The models.
        stored: Documents in a store.

    Attributes:
        number: Its own; a name may be used again.
        requests: How many it is answering.
    """

    numbers = count()

    def __init__(
        self, name: str, models: Mapping[str, ServedModel], stored: StoredCorpus | None = None
    ) -> None:
        self.name = name
        self.models = dict(models)
        self.stored = stored
        self.corpus: Corpus | None = None
        self.number = next(self.numbers)
        self.requests = 0

    def search_in(self, documents: Mapping[str, str], vectors: np.ndarray) -> None:
        """Have texts by id searched, given their embeddings [D, H]."""
        model = self.models["embedder"]
        texts, ids = list(documents.values()), list(documents)
        self.corpus = Corpus(texts, vectors, model.similarity, ids, model.bm25_weight)

    @property
    def served(self) -> dict[str, ServedModel]:
        """The models that clients may ask for: of a baseline only the page is told."""
        return {role: model for role, model in self.models.items() if "_" not in role}

    @property
    def device(self) -> torch.device:
        """Where the models compute."""
        return next(iter(self.models.values())).encoder.device

    def has(self, name: str) -> bool:
        """Whether it, or one of its models, has this name."""
        return name == self.name or any(model.name == name for model in self.served.values())


class Versions:
    """All versions that a server has loaded.

    Attributes:
        ready: Those that answer, by name.
        live: The one that answers whoever asks for no other; of no models until one is loaded.
        loading: The name of the one that is being loaded.
        failed: Why others could not be, by name.
        strict: Whether a request for a model that is not there is refused; else it is answered
            by the live version.
    """

    def __init__(self) -> None:
        self.ready: dict[str, Version] = {}
        self.live = Version("", {})
        self.loading: str | None = None
        self.failed: dict[str, str] = {}
        self.strict = False

    @property
    def current(self) -> Version:
        """That of the request at hand; outside of requests the live one."""
        held = _held.get()
        return held if held and held.models else self.live  # it came before any was loaded

    def add(self, version: Version) -> None:
        """It answers from now on; the first one is live."""
        if not self.ready:
            self.live = version
        self.ready[version.name] = version

    def find(self, name: str) -> Version:
        """A version by its name or that of a model, the live one first.

        Raises:
            ServingError: There is none (404), or not yet any (503).
        """
        if not self.ready:
            raise ServingError("loading", "the model is being loaded", retry_after=5)
        for version in (self.live, *self.ready.values()):
            if version.has(name):
                return version
        raise _not_found()

    def load(self, name: str, open_version: Callable[[], Version]) -> None:
        """Open one beside the others, in a thread of its own.

        Raises:
            ServingError: There is one of its name, or another one is being loaded.
        """
        if any(version.has(name) for version in self.ready.values()):
            reason = "there is a model of this name; unload it, or take another name"
            raise ServingError("model_conflict", reason)
        if self.loading is not None:
            raise ServingError("model_conflict", "another model is being loaded; try again later")
        self.failed.pop(name, None)
        self.loading = name
        Thread(target=self._load, args=(name, open_version), daemon=True).start()

    def go_live(self, name: str) -> None:
        """Have it answer the requests that arrive from now on.

        Raises:
            ServingError: There is none of this name.
        """
        self.live = self.find(name)
        logger.info("%s is live", self.live.name)

    def unload(self, name: str, forget: Callable[[Version], None]) -> None:
        """Give it no more requests; ``forget`` it when those that it has begun are answered.

        Raises:
            ServingError: It is live, or there is none of this name.
        """
        version = self.find(name)
        if version is self.live:
            raise ServingError("model_conflict", "this model is live; activate another one first")
        del self.ready[version.name]
        Thread(target=_unload, args=(version, forget), daemon=True).start()

    def _load(self, name: str, open_version: Callable[[], Version]) -> None:
        logger.info("loading %s", name)
        try:
            self.add(open_version())
            logger.info("%s is loaded", name)
        except Exception as error:
            logger.error("%s could not be loaded", name, exc_info=error)
            known = isinstance(error, ValueError | ServingError)
            self.failed[name] = str(error) if known else "see the server log"
        finally:
            self.loading = None


def _unload(version: Version, forget: Callable[[Version], None]) -> None:
    while version.requests:
        time.sleep(UNLOAD_EVERY)
    forget(version)
    logger.info("%s is unloaded", version.name)


def embed_whole(version: Version, documents: Mapping[str, str], bf16: bool) -> None:
    """Embed documents at once, and have them searched."""
    logger.info("embedding %d documents of the corpus", len(documents))
    vectors = version.models["embedder"].embedder.encode(
        list(documents.values()), prompt_name="document", bf16=bf16, show_progress=True
    )
    version.search_in(documents, vectors.numpy())


def embed_in_blocks(
    version: Version, documents: Mapping[str, str], submit: Callable[[Job], None], at_once: int
) -> None:
    """Embed documents by jobs of ``BLOCK`` texts, so many at once, and have them searched.

    Raises:
        ServingError: A job has failed.
    """
    logger.info("embedding %d documents of the corpus", len(documents))
    model, texts = version.models["embedder"], list(documents.values())
    prompt = model.encoder.find_prompt("document")

    def embed(start: int) -> np.ndarray:
        block = [with_prompt(text, prompt) for text in texts[start : start + BLOCK]]
        job = Job(model, model.tokenizer.texts(block))
        submit(job)
        return job.future.result()

    with ThreadPoolExecutor(at_once) as pool:
        vectors = list(pool.map(embed, range(0, len(texts), BLOCK)))
    version.search_in(documents, np.concatenate(vectors))


def _not_found() -> ServingError:
    reason = "there is no such model here; /v1/models lists all"
    return ServingError("model_not_found", reason, "model")


class Hold:
    """A request's hold on its version, which is not unloaded before the request is answered.

    Args:
        versions: Of the server.
        name: The one that is asked for; None: the live one.

    Raises:
        ServingError: There is none of that name.
    """

    def __init__(self, versions: Versions, name: str | None) -> None:
        self.versions = versions
        self.may_choose = name is None
        self._version = versions.live if name is None else versions.find(name)
        self._take(self._version)

    def choose(self, model: str) -> None:
        """Go over to the version that has a model of this name, unless one was asked for.

        Raises:
            ServingError: There is none, where that is an error.
        """
        known = any(version.has(model) for version in self.versions.ready.values())
        if self.may_choose and (known or self.versions.strict):
            found = self.versions.find(model)
            self.release()
            self._take(found)

    def release(self) -> None:
        """The request has been answered."""
        self._version.requests -= 1

    def _take(self, version: Version) -> None:
        version.requests += 1
        self._version = version
        _held.set(version)
