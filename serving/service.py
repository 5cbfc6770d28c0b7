"""What every route calls: check texts, tokenize them, have the engine compute them."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from common.prompts import with_prompt
from serving.engine.corpus import Corpus
from serving.engine.engine import Engine
from serving.engine.limits import Limits
from serving.engine.model import ServedModel
from serving.engine.tokenization import Side, Tokens
from serving.http.errors import ServingError

# Shapes: N texts or pairs, H dimensions of an embedding.

Text = str | list[int]  # or its token ids

# Characters that are tokenized in the event loop: to hand them to a thread would take longer.
AT_ONCE = 2000
Result = TypeVar("Result")


@dataclass(frozen=True)
class ModelOutput:
    """What a model computed for the texts of a request.

    Args:
        model: The name of the model, as clients see it.
        values: Embeddings [N, H] or raw scores [N], fp32.
        sizes: Tokens of each text that were computed.
        truncated: The numbers of texts that were cut.
        times: Milliseconds by stage.
    """

    model: str
    values: np.ndarray
    sizes: list[int]
    truncated: list[int]
    times: dict[str, float] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Tokens computed."""
        return sum(self.sizes)


class Service:
    """The engine, for handlers in the event loop.

    Args:
        engine: Started or not.
        workers: Threads that tokenize.
    """

    def __init__(self, engine: Engine, workers: int = 1) -> None:
        self._engine = engine
        self.limits: Limits = engine.limits
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="tokenizer")

    def model(self, role: str) -> ServedModel:
        """The model by role; see ``models``."""
        return self.models()[role]

    def models(self) -> dict[str, ServedModel]:
        """All models by role, once they are loaded.

        Raises:
            ServingError: They are not, or are no longer served.
        """
        self._engine.check_open()
        return self._engine.models

    @property
    def loaded(self) -> dict[str, ServedModel]:
        """The same without the check, for finished work: it is answered while draining too."""
        return self._engine.models

    @property
    def corpus(self) -> Corpus | None:
        """The documents that the server searches, if it has any."""
        return self._engine.corpus

    async def embed(
        self,
        texts: Sequence[Text],
        *,
        param: str,
        role: str = "embedder",
        prompt: str | None = None,
        truncate: bool | None = None,
        side: Side | None = None,
        numbered: bool = True,
    ) -> ModelOutput:
        """Embed texts.

        Args:
            texts: Texts, or token ids.
            param: The field of the request that holds them, for messages.
            role: Of the model.
            prompt: Text put before each; token ids cannot have one. None: before texts the model's
                default prompt, as in its ``encode``.
            truncate: Whether too long ones are cut; None: as the server's limits say.
            side: Where they are cut.
            numbered: Whether the field holds a list.
        """
        model = self.model(role)
        self.check_count(len(texts), param)
        for at, text in enumerate(texts):
            where = f"{param}.{at}" if numbered else param
            if isinstance(text, str):
                self.check_text(text, where)
            else:
                self._check_ids(text, where, model)
                if prompt:
                    raise ServingError(
                        "validation_error",
                        f"{where}: no prompt can be put before token ids; send text, or ask for no "
                        "prompt",
                        where,
                    )

        def tokenize() -> list[Tokens]:
            before = model.default_prompt if prompt is None else prompt
            strings = [with_prompt(text, before) for text in texts if isinstance(text, str)]
            made = iter(model.tokenizer.texts(strings, side))
            return [
                next(made) if isinstance(text, str) else model.tokenizer.given_ids(text, side)
                for text in texts
            ]

        size = sum(map(len, texts))
        return await self._run(model, tokenize, size, truncate, param if numbered else "", param)

    async def score(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        params: tuple[str, str],
        role: str = "reranker",
        truncate: bool | None = None,
        side: Side | None = None,
        max_document: int | None = None,
    ) -> ModelOutput:
        """Score pairs of query and document: raw scores.

        Args:
            pairs: The pairs.
            params: The fields of the request that hold queries and documents, for messages.
            role: Of the model.
            truncate: Whether too long pairs are cut; None: as the server's limits say.
            side: Where they are cut.
            max_document: Tokens after which a document is cut.
        """
        model = self.model(role)
        self.check_count(len(pairs), params[1])
        one_query = len({query for query, _ in pairs}) == 1
        for at, (query, document) in enumerate(pairs):
            if at == 0 or not one_query:
                self.check_text(query, params[0] if one_query else f"{params[0]}.{at}")
            self.check_text(document, f"{params[1]}.{at}" if len(pairs) > 1 else params[1])

        def tokenize() -> list[Tokens]:
            queries, documents = zip(*pairs, strict=True)
            full = list(zip(*model.encoder.joined(queries, documents, {}), strict=True))
            return model.tokenizer.pairs(full, side, max_document)

        size = sum(len(query) + len(document) for query, document in pairs)
        return await self._run(model, tokenize, size, truncate, params[1], params[1])

    async def in_worker(self, work: Callable[[], Result]) -> Result:
        """Run in a thread what would block the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._workers, work)

    async def _run(
        self,
        model: ServedModel,
        tokenize: Callable[[], list[Tokens]],
        characters: int,
        truncate: bool | None,
        listed: str,
        param: str,
    ) -> ModelOutput:
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(self.limits.request_timeout):
                items = tokenize() if characters <= AT_ONCE else await self.in_worker(tokenize)
                tokenized = time.perf_counter() - begun
                self._engine.metrics.tokenizing.observe(tokenized)
                truncated = [at for at, tokens in enumerate(items) if tokens.truncated]
                if truncated and not (self.limits.truncate if truncate is None else truncate):
                    raise ServingError(
                        "context_length_exceeded",
                        f"{listed or param}: has more than the {model.encoder.max_length} tokens "
                        "that the model takes (special tokens included); cut it, or allow "
                        "truncation",
                        f"{listed}.{truncated[0]}" if listed else param,
                    )
                job = self._engine.submit(model, items)
                try:
                    values = await asyncio.wrap_future(job.future)
                finally:
                    self._engine.withdraw(job)
        except TimeoutError:
            raise ServingError(
                "timeout",
                f"there was no answer within {self.limits.request_timeout:g} s",
                retry_after=1,
            ) from None
        self._engine.metrics.truncated.inc(len(truncated))
        times = {"tokenization": tokenized, "queue": job.queued, "inference": job.inference}
        return ModelOutput(
            model.name,
            values,
            [len(tokens) for tokens in items],
            truncated,
            {name: 1000 * seconds for name, seconds in times.items()},
        )

    def check_count(self, count: int, param: str) -> None:
        if count == 0:
            raise ServingError("empty_input", f"{param}: is empty; give at least one text", param)
        if count > self.limits.max_items:
            raise ServingError(
                "too_many_items",
                f"{param}: {count} texts are more than the {self.limits.max_items} that one "
                "request may have; send them in several",
                param,
            )

    def check_text(self, text: str, param: str) -> None:
        if len(text) > self.limits.max_characters:
            raise ServingError(
                "text_too_long",
                f"{param}: {len(text)} characters are more than the {self.limits.max_characters} "
                "that one text may have",
                param,
            )
        if not text or text.isspace():
            raise ServingError("empty_text", f"{param}: is empty; give a text", param)

    def _check_ids(self, ids: list[int], param: str, model: ServedModel) -> None:
        if not self.limits.accept_token_ids:
            raise ServingError(
                "invalid_token_id",
                f"{param}: token ids are not taken, because they are right only if they are of the "
                "model's own tokenizer; send text (in LangChain: check_embedding_ctx_length=False)",
                param,
            )
        if not ids:
            raise ServingError("empty_text", f"{param}: is empty; give token ids", param)
        if min(ids) < 0 or max(ids) >= model.vocabulary:
            raise ServingError(
                "invalid_token_id",
                f"{param}: the model has token ids from 0 to {model.vocabulary - 1}",
                param,
            )
