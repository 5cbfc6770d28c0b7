"""Fields that several bodies share: truncation and prompts."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, field_validator

from serving.engine.model import ServedModel
from serving.engine.tokenization import Side, Truncation
from serving.http.errors import ServingError, wrong_field
from serving.http.http_json import Body, or_one_message
from serving.service import Service

SIDES = ("query", "document")
# What Cohere, Voyage, NVIDIA, Jina and Google call the two sides of a search.
SIDE_OF = {
    "query": "query",
    "search_query": "query",
    "retrieval.query": "query",
    "retrieval_query": "query",
    "document": "document",
    "passage": "document",
    "search_document": "document",
    "retrieval.passage": "document",
    "retrieval_document": "document",
}
# What they call other tasks: a model without a prompt of that name embeds the plain text.
OTHER_TASKS = {"classification", "clustering", "text-matching", "semantic_similarity", "separation"}
# The values by which fields of several bodies ask for scores as the model computes them.
RAW = {"raw_scores": True, "use_activation": False}


class TruncationFields(Body):
    """What happens to texts that are too long: a boolean, or a word of Cohere's and NVIDIA's."""

    truncate: Annotated[
        bool | Literal["NONE", "START", "END"] | None,
        or_one_message("must be true, false, NONE, START or END"),
    ] = Field(
        default=None,
        validation_alias=AliasChoices("truncate", "truncation"),
        description="truncate texts that are too long (START: at their beginning), or refuse them",
    )
    truncation_direction: Literal["left", "right"] | None = Field(
        default=None,
        validation_alias=AliasChoices("truncation_direction", "truncation_side"),
        description="at which side; default: as the model's tokenizer does",
    )

    @field_validator("truncate", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        known = isinstance(value, str) and value.upper() in ("NONE", "START", "END")
        return value.upper() if known else value

    @field_validator("truncation_direction", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @property
    def requested_truncation(self) -> Truncation:
        """What the fields ask for, as the service takes it."""
        sides: dict[str | bool | None, Side] = {"START": "left", "END": "right"}
        return Truncation(
            self.truncate != "NONE" if isinstance(self.truncate, str) else self.truncate,
            sides.get(self.truncate, self.truncation_direction),
        )

    def ignored(self, service: Service) -> list[str]:
        """Also END where the server cuts at the end anyway, and a side beside a word for one."""
        models, limits = service.engine.models, service.engine.limits
        sides = {model.tokenizer.side for model in models.values()}
        is_default = self.truncate == "END" and limits.truncate and sides == {"right"}
        allowed = (
            limits.truncate
            if self.requested_truncation.allowed is None
            else self.requested_truncation.allowed
        )
        decided = self.truncation_direction and (self.truncate in ("START", "END") or not allowed)
        scorer = models.get("reranker") or models["embedder"]
        raw = [
            name
            for name, value in RAW.items()
            if name in type(self).model_fields and getattr(self, name) is value
        ]
        return [
            *super().ignored(service),
            *(["truncate"] if is_default else []),
            *(["truncation_direction"] if decided else []),
            *([] if scorer.kind.logits else raw),
        ]


class PromptFields(Body):
    """Which of the model's prompts goes in front of each text; by default its default prompt."""

    input_type: str | None = Field(
        default=None,
        description="query or document (also passage, search_query, search_document, ...): put the "
        "model's prompt for these before each text",
        examples=["query"],
    )
    task: str | None = Field(
        default=None, description="the same, as Jina has it: retrieval.query, ..."
    )

    def choices(self, prompts: Mapping[str, str]) -> dict[str, str | None]:
        """The name of a prompt by the key that chooses it.

        "" is of a key that asks for the plain text, None of a word that says nothing.

        Raises:
            ServingError: An ``input_type`` that nobody knows.
        """
        chosen: dict[str, str | None] = {}
        for key, word in (("task", self.task), ("input_type", self.input_type)):
            if word is not None:
                plain = "" if word.lower() in OTHER_TASKS else None
                chosen[key] = word if word in prompts else SIDE_OF.get(word.lower(), plain)
        if "input_type" in chosen and chosen["input_type"] is None:
            known = ", ".join(sorted({*SIDE_OF, *prompts}))
            raise wrong_field("input_type", f"must be one of {known}")
        return chosen

    def find_prompt(self, model: ServedModel) -> str | None:
        """The prompt to put before each text; None where nothing is said of it.

        Raises:
            ServingError: There is no such prompt, or two keys choose different ones.
        """
        choices = self.choices(model.prompts)
        chosen = {key: name for key, name in choices.items() if name}
        if len(set(chosen.values())) > 1:
            both = " and ".join(f"{key} ({name})" for key, name in chosen.items())
            raise ServingError(
                "validation_error", f"{both} choose different prompts; give one", next(iter(chosen))
            )
        if chosen:
            return model.prompts.get(next(iter(chosen.values())), "")
        return "" if "" in choices.values() else None

    def ignored(self, service: Service) -> list[str]:
        """A key that chooses no prompt, or one that the model does not have.

        Whatever is chosen takes the place of a default prompt.
        """
        model = service.engine.models["embedder"]
        prompts, default = model.prompts, model.encoder.default_prompt
        two_sided = any(prompts.get(side) for side in SIDES)
        idle = [
            key
            for key, name in self.choices(prompts).items()
            if name is None or not (default or prompts.get(name) or (two_sided and name in SIDES))
        ]
        return [*super().ignored(service), *idle]


class TextOptions(PromptFields, TruncationFields):
    """The options of bodies whose texts are embedded."""


def check_name(name: str, prompts: Mapping[str, str]) -> None:
    """Refuse a ``prompt_name`` that the model does not have; "query" and "document" may be empty.

    Raises:
        ServingError: There is no such prompt.
    """
    known = {*SIDES, *prompts}
    if name not in known:
        raise wrong_field("prompt_name", f"the model has the prompts {', '.join(sorted(known))}")
