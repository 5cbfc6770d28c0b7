"""BM25 in PostgreSQL.

Words are kept as a ``tsvector`` with as many positions as a word occurs; a table beside counts in
how many documents each word is.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from psycopg import Connection, errors, sql
from psycopg.rows import TupleRow

from common.bm25 import K1, B
from stores.store import Hit, StoreUnavailable

MOST_POSITIONS = 255  # of a word in a tsvector
LONGEST_SEARCH = 30  # seconds


def search_words(
    connection: Connection[TupleRow],
    table: str,
    words: Sequence[str],
    k: int,
    condition: str,
    given: Sequence[Any],
) -> list[Hit]:
    """The k documents with the highest scores, best first.

    Args:
        connection: In a transaction.
        table: Of the documents.
        words: Of the query.
        k: How many.
        condition: A WHERE clause whose first parameter is a ``tsquery``.
        given: Its other parameters.
    """
    counts = Counter(words)
    idf, mean = _idf(connection, table, counts)
    weights = {word: counts[word] * idf[word] * (K1 + 1) for word in idf}
    rarest_first = sorted(weights, key=lambda word: -idf[word])
    found: list[Hit] = []
    # A document without any of the rarest words scores at most the sum of the other weights: if the
    # k-th has more, the best are found (MaxScore).
    size = max(1, len(weights) // 4)
    connection.execute(f"SET LOCAL statement_timeout = '{LONGEST_SEARCH}s'")
    while weights:
        rest = sum(weights[word] for word in rarest_first[size:])
        any_of = " | ".join(f"'{word}'" for word in rarest_first[:size])
        try:
            found = _score(connection, table, weights, mean, k, condition, [any_of, *given])
        except errors.QueryCanceled:
            raise StoreUnavailable(
                f"store: PostgreSQL found no answer to a query of {len(weights):,} words in "
                f"{LONGEST_SEARCH} seconds; shorten it, or run scripts/index.py if clients have "
                "written much"
            ) from None
        if size >= len(weights) or (len(found) == k and found[-1].score > rest):
            break
        size *= 2
    return found


def _score(
    connection: Connection[TupleRow],
    table: str,
    weights: dict[str, float],
    mean: float,
    k: int,
    condition: str,
    given: Sequence[Any],
) -> list[Hit]:
    """The k best of the documents that fulfil a condition."""
    # Of a document's words only those of the query are unpacked.
    query = f"""
        WITH asked AS MATERIALIZED (SELECT * FROM unnest(%s::text[], %s::float8[])
            AS of (lexeme, weight))
        SELECT id, sum(weight * tf / (tf + {K1} * (1 - {B} + {B} * length / %s))) AS score
        FROM {{}}, unnest(ts_filter(setweight(words, 'A', %s), '{{{{a}}}}')) AS word
            JOIN asked USING (lexeme), cardinality(word.positions) AS tf
        {condition} GROUP BY id ORDER BY score DESC, id LIMIT %s"""
    words = list(weights)
    values = [words, list(weights.values()), mean, words, *given, k]
    return [Hit(*row) for row in connection.execute(sql_of(query, table), values).fetchall()]


def _idf(
    connection: Connection[TupleRow], table: str, words: Counter[str]
) -> tuple[dict[str, float], float]:
    """The IDF of the words that are in any document, and the mean length of documents."""
    query = sql_of(
        "SELECT word, documents, length FROM {} WHERE word = ANY(%s) AND documents > 0",
        words_of(table),
    )
    rows = connection.execute(query, [["", *words]]).fetchall()
    counted = {word: (documents, length) for word, documents, length in rows}
    if "" not in counted:
        return {}, 1.0
    total, length = counted.pop("")
    idf = {
        word: float(np.log1p((total - documents + 0.5) / (documents + 0.5)))
        for word, (documents, _) in counted.items()
    }
    return idf, max(1, length) / total


def recount(connection: Connection[TupleRow], table: str, sign: int, documents: str) -> None:
    """Add the words of some documents to the counts, or take them away.

    Args:
        connection: In a transaction.
        table: Of the documents.
        sign: 1 or -1.
        documents: Where they stand: ``staged``, or the table itself, of which those in ``staged``.
    """
    rows = sql_of("{} JOIN staged USING (id)" if documents == table else "{}", documents)
    # The word '' counts the documents and their words.
    query = sql.SQL(
        "INSERT INTO {counts} AS counts SELECT word, sum(documents), sum(length) FROM ("
        "SELECT lexeme AS word, {sign} AS documents, 0 AS length FROM {rows}, "
        "unnest({name}.words) UNION ALL "
        "SELECT '', {sign}, {sign} * {name}.length FROM {rows}) AS each GROUP BY word "
        "ON CONFLICT (word) DO UPDATE SET documents = counts.documents + excluded.documents, "
        "length = counts.length + excluded.length"
    ).format(
        counts=sql.Identifier(words_of(table)),
        sign=sql.Literal(sign),
        rows=rows,
        name=sql.Identifier(documents),
    )
    connection.execute(query)


def allow_memory(connection: Connection[TupleRow], wanted: int) -> int:
    """Let this transaction's building of indexes hold so many bytes; return how many it may.

    They are limited by what the server takes its machine's cache to be, but not to less than its
    own ``maintenance_work_mem``.
    """
    found = connection.execute(
        "SELECT set_config('maintenance_work_mem', (allowed / 1024)::text, true), allowed FROM ("
        "SELECT greatest(pg_size_bytes(current_setting('maintenance_work_mem')), "
        "least(%s, pg_size_bytes(current_setting('effective_cache_size')))) AS allowed) AS chosen",
        [wanted],
    ).fetchone()
    assert found is not None
    return int(found[1])


def sql_of(query: str, *names: str) -> sql.Composed:
    """A query with the names of tables and indexes."""
    return sql.SQL(query).format(*map(sql.Identifier, names))


def tsvector(words: Sequence[str]) -> str:
    """Words as the text of a ``tsvector``."""
    counts = Counter(words)
    return " ".join(
        f"'{word}':{','.join(map(str, range(1, min(count, MOST_POSITIONS) + 1)))}"
        for word, count in counts.items()
    )


def words_of(table: str) -> str:
    """The table that counts its words."""
    return f"{table}_counts"


def lock_key(text: str) -> int:
    """The number of an advisory lock."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
