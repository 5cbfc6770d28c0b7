"""Errors of requests: a code each, its HTTP status, and its body in each dialect of clients."""

import math
from typing import Any, Literal

Code = Literal[
    "invalid_json", "invalid_content_encoding", "empty_input", "invalid_api_key", "not_found",
    "model_not_found", "method_not_allowed",
    "payload_too_large", "too_many_items", "text_too_long", "too_much_work",
    "unsupported_media_type", "body_timeout", "validation_error", "empty_text", "invalid_token_id",
    "context_length_exceeded", "overloaded", "client_closed_request", "internal_error",
    "inference_error", "model_output_not_finite", "loading", "draining", "unhealthy", "timeout",
    "read_only", "document_not_found", "collection_moved", "store_unavailable",
    "model_conflict",
]  # fmt: skip
# native: ours and OpenAI's. rerank: what Cohere's and Jina's clients read too. tei: text-
# embeddings-inference's.
Dialect = Literal["native", "rerank", "tei"]

CODES: dict[int, tuple[Code, ...]] = {
    400: ("invalid_json", "invalid_content_encoding", "empty_input"),
    401: ("invalid_api_key",),
    403: ("read_only",),
    404: ("not_found", "model_not_found", "document_not_found"),
    405: ("method_not_allowed",),
    408: ("body_timeout",),
    409: ("collection_moved", "model_conflict"),
    413: ("payload_too_large", "too_many_items", "text_too_long", "too_much_work"),
    415: ("unsupported_media_type",),
    422: ("validation_error", "empty_text", "invalid_token_id", "context_length_exceeded"),
    429: ("overloaded",),
    499: ("client_closed_request",),
    500: ("internal_error", "inference_error", "model_output_not_finite"),
    503: ("loading", "draining", "unhealthy", "store_unavailable"),
    504: ("timeout",),
}
STATUS = {code: status for status, codes in CODES.items() for code in codes}
# TEI's types with their statuses; all other codes are of its type "Validation".
TEI_CODES: dict[tuple[str, int], tuple[Code, ...]] = {
    ("Empty", 400): ("empty_input",),
    ("Overloaded", 429): ("overloaded",),
    ("Backend", 424): ("inference_error", "model_output_not_finite", "internal_error", "timeout"),
    ("Unhealthy", 503): ("loading", "draining", "unhealthy"),
    ("Tokenizer", 422): ("invalid_token_id",),
}
TEI = {code: type_and_status for type_and_status, codes in TEI_CODES.items() for code in codes}
VALIDATION = ("Validation", 422)
# Statuses that TEI shares with us.
TEI_KEEPS = {400, 401, 404, 405, 408, 413, 415, 499, 504}
OPENAI_TYPE = {401: "authentication_error", 429: "rate_limit_error"}


class ServingError(Exception):
    """An error of a request, with what the client is told.

    Args:
        code: For programs.
        message: One sentence for people; never repeats a text of the request.
        param: The field at fault, such as "texts.3".
        retry_after: Seconds after which to try again.
        headers: Of the response.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        param: str | None = None,
        retry_after: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code: Code = code
        self.message = message
        self.param = param
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled whole; an exception would keep its message alone."""
        return type(self), (self.code, self.message, self.param, None, self.headers)

    def status(self, dialect: Dialect, unprocessable: int = 422) -> int:
        """The HTTP status in a dialect; ``unprocessable`` is the route's status for 422."""
        status = STATUS[self.code]
        if dialect == "tei" and status not in TEI_KEEPS:
            return TEI.get(self.code, VALIDATION)[1]
        return unprocessable if status == 422 else status

    def body(self, dialect: Dialect, request_id: str) -> dict[str, Any]:
        """The response's body in a dialect."""
        if dialect == "tei":
            return {
                "error": self.message,
                "error_type": TEI.get(self.code, VALIDATION)[0],
                "param": self.param,
                "request_id": request_id,
            }
        status = STATUS[self.code]
        kind = "server_error" if status >= 500 else "invalid_request_error"
        error = {
            "message": self.message,
            "type": OPENAI_TYPE.get(status, kind),
            "param": self.param,
            "code": self.code,
        }
        body: dict[str, Any] = {"error": error, "request_id": request_id}
        if dialect == "rerank":
            body |= {"id": request_id, "message": self.message, "detail": self.message}
        return body


def wrong_field(param: str, reason: str, code: Code = "validation_error") -> ServingError:
    """The error of a field of the body, which its message names."""
    return ServingError(code, f"{param}: {reason}", param)
