"""Turn the judged documents of an evaluation set into training groups."""

from typing import Any


def group(
    query: str, judged: dict[str, float], texts: dict[str, str], threshold: float, highest: float
) -> dict[str, Any]:
    """Build the training group of a query.

    Args:
        query: Its text.
        judged: Document id -> grade.
        texts: Document id -> text.
        threshold: The least grade of a positive.
        highest: The highest grade of the set, by which grades are divided to give the scores, in
            [0, 1] (those below 0 count as 0); 0: without scores.
    """
    pos = [identifier for identifier, grade in judged.items() if grade >= threshold]
    neg = [identifier for identifier, grade in judged.items() if grade < threshold]
    record: dict[str, Any] = {
        "query": query,
        "pos": [texts[identifier] for identifier in pos],
        "neg": [texts[identifier] for identifier in neg],
    }
    if highest:
        for side, identifiers in (("pos", pos), ("neg", neg)):
            grades = (max(judged[identifier], 0.0) for identifier in identifiers)
            record[f"{side}_scores"] = [grade / highest for grade in grades]
    return record
