"""What Qdrant takes as the id of a point and of a word."""

import hashlib
import uuid


def point_id(text: str) -> str:
    """The id of a point, which must be a number or a UUID."""
    return str(uuid.UUID(bytes=hashlib.blake2b(text.encode(), digest_size=16).digest()))


def word_id(word: str) -> int:
    """The dimension of a word in sparse vectors: 32 bits."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "little")
