"""What every route calls: it checks texts, tokenizes them and has the engine compute them."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from common.prompts import with_prompt
from encoders.kinds import displayed_scores
from serving.engine.engine import Engine
from serving.engine.model import ServedModel
from serving.engine.similarity import similarities
from serving.engine.tokenization import Tokens, Truncation
from serving.http.errors import wrong_field

# Shapes: N texts or pairs, Q queries, D documents, H dimensions of an embedding.

Text = str | list[int]  # or its token ids
Pair = tuple[str, str]  # query and document

# Characters that are tokenized in the event loop: handing them to a thread would take longer.
TOKENIZED_INLINE = 2000
BLOCKING_THREADS = 16  # that wait for stores and disks; PostgreSQL's pool has as many connections
Result = TypeVar("Result")


@dataclass(frozen=True)
class ModelOutput:
    """What a model computed for the texts of a request.

    Args:
        model: The model.
        values: Embeddings [N, H], N matrices [T, H] or raw scores [N], fp32.
        sizes: Tokens of each text that were computed.
        truncated: The numbers of the texts (or pairs) that were truncated.
        started_at: When its first stage began, in seconds since 1970.
        times: Milliseconds by stage, in their order.
    """

    model: ServedModel
    values: np.ndarray
    sizes: list[int]
    truncated: list[int]
    started_at: float
    times: dict[str, float]

    @property
    def tokens(self) -> int:
        """Tokens computed."""
        return sum(self.sizes)

    @property
    def usage(self) -> dict[str, int]:
        """Tokens as OpenAI counts them."""
        return {"prompt_tokens": self.tokens, "total_tokens": self.tokens}

    def scores(self, raw: bool = False) -> np.ndarray:
        """Scores [N] as people see them: of a reranker's logits the sigmoid, unless ``raw``."""
        return self.values if raw else displayed_scores(self.model.encoder, self.values)


class Service:
    """The engine (started or not), for handlers in the event loop; ``workers`` threads tokenize."""

    def __init__(self, engine: Engine, workers: int = 1) -> None:
        self.engine = engine
        self.workers = workers
        self._tokenizers = ThreadPoolExecutor(workers, thread_name_prefix="tokenizer")
        self._blocking = ThreadPoolExecutor(BLOCKING_THREADS, thread_name_prefix="blocking")

    def model(self, role: str) -> ServedModel:
        """The model by role; see ``models``."""
        return self.models()[role]

    def models(self) -> dict[str, ServedModel]:
        """All models by role, once they are loaded.

        Finished work needs no such check, and reads them from the engine: it is answered while
        draining too.

        Raises:
            ServingError: They are not, or are no longer served.
        """
        self.engine.check_open()
        return self.engine.models

    async def embed(
        self,
        texts: Sequence[Text],
        *,
        param: str,
        truncation: Truncation,
        prompt: str | None = None,
        is_list: bool = True,
    ) -> ModelOutput:
        """Embed texts.

        Args:
            texts: Texts, or token ids.
            param: The field of the request that holds them, for messages.
            truncation: What happens to texts that are too long.
            prompt: Text put before each; token ids cannot have one. None: before texts the model's
                default prompt, as in its ``encode``.
            is_list: Whether the field holds a list.
        """
        model = self.model("embedder")
        before = model.encoder.default_prompt if prompt is None else prompt
        self.check_count(len(texts), param)
        places = item_places(param, len(texts)) if is_list else [param]
        for text, place in zip(texts, places, strict=True):
            if isinstance(text, str):
                self.check_text(text, place)
                continue
            self._check_ids(text, place, model)
            if before:
                raise wrong_field(
                    place,
                    "a prompt, such as the model's default one, cannot be put before token ids; "
                    "send text, or ask for no prompt (input_type: classification)",
                )

        def tokenize() -> list[Tokens]:
            strings = [with_prompt(text, before) for text in texts if isinstance(text, str)]
            made = iter(model.tokenizer.texts(strings, truncation.side))
            return [
                next(made)
                if isinstance(text, str)
                else model.tokenizer.given_ids(text, truncation.side)
                for text in texts
            ]

        return await self._run(model, tokenize, sum(map(len, texts)), truncation, places)

    async def embed_sides(
        self,
        model: ServedModel,
        queries: Sequence[str],
        documents: Sequence[str],
        truncation: Truncation,
        places: Sequence[str],
    ) -> ModelOutput:
        """Embed queries and documents, each behind the model's prompt for its side.

        The texts have been checked; ``places`` are their fields, for messages.
        """
        size = sum(map(len, queries)) + sum(map(len, documents))
        tokenize = partial(model.sides, queries, documents, truncation)
        return await self._run(model, tokenize, size, truncation, places)

    async def score(
        self,
        pairs: Sequence[Pair],
        *,
        params: tuple[str, str],
        truncation: Truncation,
        role: str = "reranker",
        is_list: bool = True,
        checked: bool = False,
    ) -> ModelOutput:
        """Score pairs of query and document: raw scores of a reranker, similarities of an embedder.

        Args:
            pairs: The pairs.
            params: The fields of the request that hold queries and documents, for messages.
            truncation: What happens to pairs that are too long.
            role: Of the model.
            is_list: Whether the field of the documents is a list.
            checked: Whether the texts of the request have been checked; others are the server's.
        """
        model = self.model(role)
        places = item_places(params[1], len(pairs)) if is_list else [params[1]]
        if not checked:
            self._check_pairs(pairs, params, places)
        if model.kind.retrieves:
            return await self._similarities(model, pairs, params, truncation)

        def tokenize() -> list[Tokens]:
            queries, documents = zip(*pairs, strict=True)
            joined = model.encoder.add_prompts(queries, documents, {})
            return model.pairs(list(zip(*joined, strict=True)), truncation)

        size = sum(len(query) + len(document) for query, document in pairs)
        return await self._run(model, tokenize, size, truncation, places)

    async def _similarities(
        self,
        model: ServedModel,
        pairs: Sequence[Pair],
        params: tuple[str, str],
        truncation: Truncation,
    ) -> ModelOutput:
        """Similarities of queries and documents by an embedder; each text is embedded once."""
        queries, documents = (list(dict.fromkeys(side)) for side in zip(*pairs, strict=True))
        places = [params[0]] * len(queries) + [params[1]] * len(documents)
        answer = await self.embed_sides(model, queries, documents, truncation, places)
        row_of_query = {text: row for row, text in enumerate(queries)}
        row_of_document = {text: row for row, text in enumerate(documents, len(queries))}
        rows = [(row_of_query[query], row_of_document[document]) for query, document in pairs]
        asked, found = (answer.values[list(side)] for side in zip(*rows, strict=True))
        scores = similarities(asked, found, model.similarity)
        truncated = [at for at, row in enumerate(rows) if not set(row).isdisjoint(answer.truncated)]
        return replace(answer, values=scores, truncated=truncated)

    async def in_tokenizer(self, work: Callable[[], Result]) -> Result:
        """Run in a tokenizer thread what would block the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._tokenizers, work)

    async def in_worker(self, work: Callable[[], Result]) -> Result:
        """Run in a thread of its own pool what waits for a store or a disk, which may hang."""
        return await asyncio.get_running_loop().run_in_executor(self._blocking, work)

    async def _run(
        self,
        model: ServedModel,
        tokenize: Callable[[], list[Tokens]],
        characters: int,
        truncation: Truncation,
        places: Sequence[str],
    ) -> ModelOutput:
        begun, started_at = time.perf_counter(), time.time()
        limits, metrics = self.engine.limits, self.engine.metrics
        items = tokenize() if characters <= TOKENIZED_INLINE else await self.in_tokenizer(tokenize)
        tokenized = time.perf_counter() - begun
        metrics.tokenizing.observe(tokenized)
        truncated = [at for at, tokens in enumerate(items) if tokens.truncated]
        too_long = [at for at in truncated if items[at].too_long]
        if too_long and not (limits.truncate if truncation.allowed is None else truncation.allowed):
            raise wrong_field(
                places[too_long[0]],
                f"has more than the {model.shown_length} tokens that the model takes "
                "(special tokens included); shorten it, or allow truncation",
                "context_length_exceeded",
            )
        job = self.engine.submit(model, items)
        try:
            values = await asyncio.wrap_future(job.future)
        finally:
            self.engine.withdraw(job)
        metrics.truncated.inc(len(truncated))
        times = {"tokenization": tokenized, "queue": job.queued, "inference": job.inference}
        times = {name: 1000 * seconds for name, seconds in times.items()}
        sizes = [len(tokens) for tokens in items]
        return ModelOutput(model, values, sizes, truncated, started_at, times)

    def check_count(self, count: int, param: str) -> None:
        """Refuse no texts at all, and too many."""
        most = self.engine.limits.max_items
        if count == 0:
            raise wrong_field(param, "is empty; give at least one text", "empty_input")
        if count > most:
            reason = f"one request may have at most {most} texts, got {count}"
            raise wrong_field(param, f"{reason}; send several requests", "too_many_items")

    def _check_pairs(
        self, pairs: Sequence[Pair], params: tuple[str, str], places: Sequence[str]
    ) -> None:
        self.check_count(len(pairs), params[1])
        one_query = len({query for query, _ in pairs}) == 1
        for at, (query, document) in enumerate(pairs):
            if at == 0 or not one_query:
                self.check_text(query, params[0] if one_query else f"{params[0]}.{at}")
            self.check_text(document, places[at])

    def check_text(self, text: str, param: str) -> None:
        """Refuse an empty text, and one that is too long to be tokenized."""
        most = self.engine.limits.max_characters
        if len(text) > most:
            reason = f"one text may have at most {most} characters, got {len(text)}"
            raise wrong_field(param, reason, "text_too_long")
        if not text or text.isspace():
            raise wrong_field(param, "is empty; give a text", "empty_text")

    def _check_ids(self, ids: list[int], param: str, model: ServedModel) -> None:
        if not self.engine.limits.accept_token_ids:
            raise wrong_field(
                param,
                "token ids are not accepted, because they are right only if they come from the "
                "model's own tokenizer; send text (in LangChain: check_embedding_ctx_length=False)",
                "invalid_token_id",
            )
        if not ids:
            raise wrong_field(param, "is empty; give token ids", "empty_text")
        vocabulary = model.encoder.config.vocab_size
        if min(ids) < 0 or max(ids) >= vocabulary:
            reason = f"the model has token ids from 0 to {vocabulary - 1}"
            raise wrong_field(param, reason, "invalid_token_id")


def item_places(param: str, count: int) -> list[str]:
    """The places of the items of a list: "texts.0", "texts.1", ..."""
    return [f"{param}.{at}" for at in range(count)]
