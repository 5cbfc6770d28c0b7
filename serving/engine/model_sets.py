"""Model sets: models that are served together, with the documents that they search.

One set is live: it answers requests that ask for no other. The others are loaded beside it, before
they go live or after. A request keeps to one model set from its beginning to its end.
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
_current: ContextVar["ModelSet | None"] = ContextVar("model_set", default=None)


class ModelSet:
    """An embedder, a reranker or both, and the documents that the embedder has embedded.

    Args:
        name: Of the set.
        models: The models by role.
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

    def set_corpus(self, documents: Mapping[str, str], vectors: np.ndarray) -> None:
        """Set the documents to search: texts by id, and their embeddings [D, H]."""
        model = self.models["embedder"]
        texts, ids = list(documents.values()), list(documents)
        self.corpus = Corpus(texts, vectors, model.similarity, ids, model.bm25_weight)

    @property
    def served(self) -> dict[str, ServedModel]:
        """The models that clients may ask for; a baseline is only on the page."""
        return {role: model for role, model in self.models.items() if "_" not in role}

    @property
    def device(self) -> torch.device:
        """Where the models compute."""
        return next(iter(self.models.values())).encoder.device

    def has(self, name: str) -> bool:
        """Whether it, or one of its models, has this name."""
        return name == self.name or any(model.name == name for model in self.served.values())


class ModelSets:
    """All model sets that a server has loaded.

    Attributes:
        ready: The sets that answer, by name.
        live: Answers requests that ask for no other; it has no models until one is loaded.
        loading: The name of the set that is being loaded.
        failed: Why others could not be loaded, by name.
        strict: Whether a request for a model that is not there is refused; else it is answered
            by the live model set.
    """

    def __init__(self) -> None:
        self.ready: dict[str, ModelSet] = {}
        self.live = ModelSet("", {})
        self.loading: str | None = None
        self.failed: dict[str, str] = {}
        self.strict = False

    @property
    def current(self) -> ModelSet:
        """The set of the current request; outside of requests the live one."""
        bound = _current.get()
        return bound if bound and bound.models else self.live  # it came before any was loaded

    def add(self, model_set: ModelSet) -> None:
        """Have a set answer requests from now on; the first one is live."""
        if not self.ready:
            self.live = model_set
        self.ready[model_set.name] = model_set

    def find(self, name: str) -> ModelSet:
        """A model set by its name or that of a model, the live one first.

        Raises:
            ServingError: There is none (404), or not yet any (503).
        """
        if not self.ready:
            raise ServingError("loading", "the model is being loaded", retry_after=5)
        for model_set in (self.live, *self.ready.values()):
            if model_set.has(name):
                return model_set
        raise _not_found()

    def load(self, name: str, open_models: Callable[[], ModelSet]) -> None:
        """Open a set beside the others, in a thread of its own.

        Raises:
            ServingError: There is a model of this name, or another one is being loaded.
        """
        if any(model_set.has(name) for model_set in self.ready.values()):
            reason = "a model of this name is loaded; unload it, or use another name"
            raise ServingError("model_conflict", reason)
        if self.loading is not None:
            raise ServingError("model_conflict", "another model is being loaded; try again later")
        self.failed.pop(name, None)
        self.loading = name
        Thread(target=self._load, args=(name, open_models), daemon=True).start()

    def go_live(self, name: str) -> None:
        """Have a set answer the requests that arrive from now on.

        Raises:
            ServingError: There is none of this name.
        """
        self.live = self.find(name)
        logger.info("%s is live", self.live.name)

    def unload(self, name: str, forget: Callable[[ModelSet], None]) -> None:
        """Give a set no more requests; call ``forget`` when those that it has begun are answered.

        Raises:
            ServingError: It is live, or there is none of this name.
        """
        model_set = self.find(name)
        if model_set is self.live:
            raise ServingError("model_conflict", "this model is live; activate another one first")
        del self.ready[model_set.name]
        Thread(target=_unload, args=(model_set, forget), daemon=True).start()

    def _load(self, name: str, open_models: Callable[[], ModelSet]) -> None:
        logger.info("loading %s", name)
        try:
            self.add(open_models())
            logger.info("%s is loaded", name)
        except Exception as error:
            logger.error("%s could not be loaded", name, exc_info=error)
            known = isinstance(error, ValueError | ServingError)
            self.failed[name] = str(error) if known else "see the server log"
        finally:
            self.loading = None


def _unload(model_set: ModelSet, forget: Callable[[ModelSet], None]) -> None:
    while model_set.requests:
        time.sleep(UNLOAD_EVERY)
    forget(model_set)
    logger.info("%s is unloaded", model_set.name)


def embed_at_once(model_set: ModelSet, documents: Mapping[str, str], bf16: bool) -> None:
    """Embed all documents in one call, and set them as the corpus."""
    logger.info("embedding %d documents of the corpus", len(documents))
    vectors = model_set.models["embedder"].embedder.encode(
        list(documents.values()), prompt_name="document", bf16=bf16, show_progress=True
    )
    model_set.set_corpus(documents, vectors.numpy())


def embed_by_jobs(
    model_set: ModelSet, documents: Mapping[str, str], submit: Callable[[Job], None], at_once: int
) -> None:
    """Embed documents by jobs of ``BLOCK`` texts, so many at once, and set them as the corpus.

    Raises:
        ServingError: A job has failed.
    """
    logger.info("embedding %d documents of the corpus", len(documents))
    model, texts = model_set.models["embedder"], list(documents.values())
    prompt = model.encoder.find_prompt("document")

    def embed(start: int) -> np.ndarray:
        block = [with_prompt(text, prompt) for text in texts[start : start + BLOCK]]
        job = Job(model, model.tokenizer.texts(block))
        submit(job)
        return job.future.result()

    with ThreadPoolExecutor(at_once) as pool:
        vectors = list(pool.map(embed, range(0, len(texts), BLOCK)))
    model_set.set_corpus(documents, np.concatenate(vectors))


def _not_found() -> ServingError:
    reason = "there is no such model here; /v1/models lists all"
    return ServingError("model_not_found", reason, "model")


class Lease:
    """A request's lease on its model set, which is not unloaded before the request is answered.

    Args:
        model_sets: Of the server.
        name: The one that is asked for; None: the live one.

    Raises:
        ServingError: There is none of that name.
    """

    def __init__(self, model_sets: ModelSets, name: str | None) -> None:
        self.model_sets = model_sets
        self.may_choose = name is None
        self._model_set = model_sets.live if name is None else model_sets.find(name)
        self._take(self._model_set)

    def choose(self, model: str) -> None:
        """Switch to the model set that has a model of this name, unless one was asked for.

        Raises:
            ServingError: There is none, where that is an error.
        """
        known = any(model_set.has(model) for model_set in self.model_sets.ready.values())
        if self.may_choose and (known or self.model_sets.strict):
            found = self.model_sets.find(model)
            self.release()
            self._take(found)

    def release(self) -> None:
        """The request has been answered."""
        self._model_set.requests -= 1

    def _take(self, model_set: ModelSet) -> None:
        model_set.requests += 1
        self._model_set = model_set
        _current.set(model_set)
