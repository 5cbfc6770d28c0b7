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
]  # fmt: skip
# native: ours and OpenAI's. rerank: what Cohere's and Jina's clients read too. tei: text-
# embeddings-inference's.
Dialect = Literal["native", "rerank", "tei"]

STATUS: dict[Code, int] = {
    "invalid_json": 400,
    "invalid_content_encoding": 400,
    "empty_input": 400,
    "invalid_api_key": 401,
    "not_found": 404,
    "model_not_found": 404,
    "method_not_allowed": 405,
    "body_timeout": 408,
    "payload_too_large": 413,
    "too_many_items": 413,
    "text_too_long": 413,
    "too_much_work": 413,
    "unsupported_media_type": 415,
    "validation_error": 422,
    "empty_text": 422,
    "invalid_token_id": 422,
    "context_length_exceeded": 422,
    "overloaded": 429,
    "client_closed_request": 499,
    "internal_error": 500,
    "inference_error": 500,
    "model_output_not_finite": 500,
    "loading": 503,
    "draining": 503,
    "unhealthy": 503,
    "timeout": 504,
}
TEI_TYPE: dict[Code, str] = {
    "empty_input": "Empty",
    "overloaded": "Overloaded",
    "inference_error": "Backend",
    "model_output_not_finite": "Backend",
    "internal_error": "Backend",
    "timeout": "Backend",
    "loading": "Unhealthy",
    "draining": "Unhealthy",
    "unhealthy": "Unhealthy",
    "invalid_token_id": "Tokenizer",
}
TEI_STATUS = {
    "Empty": 400,
    "Overloaded": 429,
    "Backend": 424,
    "Unhealthy": 503,
    "Tokenizer": 422,
    "Validation": 422,
}
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

    def status(self, dialect: Dialect, unprocessable: int = 422) -> int:
        """The HTTP status in a dialect; ``unprocessable`` is the route's status for 422."""
        status = STATUS[self.code]
        if dialect == "tei" and status not in TEI_KEEPS:
            return TEI_STATUS[TEI_TYPE.get(self.code, "Validation")]
        return unprocessable if status == 422 else status

    def body(self, dialect: Dialect, request_id: str) -> dict[str, Any]:
        """The response's body in a dialect."""
        if dialect == "tei":
            return {
                "error": self.message,
                "error_type": TEI_TYPE.get(self.code, "Validation"),
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
            body |= {"id": request_id, "message": self.message}
        return body
