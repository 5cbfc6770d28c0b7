"""Map labels to relevances in [0, 1]."""

import re

from loaders.formats.records import Record
from loaders.options import DEFAULT_LABEL_MAP, ReadOptions
from loaders.parsing.fields import (
    RowError,
    as_bool,
    as_relevance,
    as_score,
    is_quoted_number,
    show,
)

_WHOLE = re.compile(r"^([-+]?\d+)\.0*$")


class Labels:
    """Maps labels to relevances according to the options.

    Attributes:
        mapped_by_default: Number of labels mapped by ``DEFAULT_LABEL_MAP``.
    """

    def __init__(self, options: ReadOptions) -> None:
        self.label_map, self.label_range = options.label_map, options.label_range
        self.mapped_by_default = 0

    def relevance(self, value: object, name: str, record: Record) -> float:
        """The relevance, in [0, 1], of a label.

        Raises:
            RowError: If the label is invalid.
        """
        if self.label_map is not None:
            return _mapped(self.label_map, value, name)
        if self.label_range is None and record.default_labels:
            self.mapped_by_default += 1
            return _mapped(DEFAULT_LABEL_MAP, value, name)
        try:
            number = as_score(value, name, record.from_text)
        except RowError as error:
            if not isinstance(value, str):
                raise
            remedy = ", or" if is_quoted_number(value) else "; for words"
            raise RowError(f"{error}{remedy} give label_map") from None
        return as_relevance(number, name, self.label_range)

    def may_be_label(self, value: object, record: Record) -> bool:
        """Whether a value is plausible as a label, and not some other text."""
        if record.from_text or self.label_map is not None:
            return True
        return not any(
            not is_quoted_number(item) if isinstance(item, str) else isinstance(item, dict)
            for item in (value if isinstance(value, list) else [value])
        )


def _mapped(label_map: dict[str, float], value: object, name: str) -> float:
    """Look a label up; ``true`` also as "1", and 3.0 also as "3"."""
    label = value.strip() if isinstance(value, str) else show(value)
    # Integer columns with missing values are often stored as floats.
    words = [label, _WHOLE.sub(r"\1", label)]
    truth = as_bool(value)
    if truth is not None and label_map is not DEFAULT_LABEL_MAP:
        words += [str(truth), str(truth).lower(), str(int(truth))]
    found = next((word for word in words if word in label_map), None)
    if found is None:
        raise RowError(
            f'"{name}" is {show(value)}, which is not in label_map ({", ".join(label_map)})'
        )
    return float(label_map[found])
