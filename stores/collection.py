"""Collections: a name, and the live table behind it, made by one model."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from stores.fingerprint import Fingerprint
from stores.store import Layout, Store, Table

# Version of what is stored beside the vectors: words, filter keys, columns. Raise it when any of
# these change, or searches silently miss documents that were written before.
FORMAT = 2
# Names of tables are made of it, and PostgreSQL's have at most 63 characters.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,29}")
REMEDY = (
    "vectors of two models cannot be compared. Re-index with scripts/index.py --migrate true, or "
    "use the model that made it"
)


@dataclass(frozen=True)
class TableSpec:
    """What a table is made with: the model and the layout of its vectors.

    Args:
        model: What decides its vectors.
        layout: How they are kept.
        name: Of the model, for messages.
    """

    model: Fingerprint
    layout: Layout
    name: str

    def table(self, collection: str) -> str:
        """The name of the table."""
        kept = f"{self.layout.dtype[5:]}{self.layout.quantization[:1]}"
        return f"{collection}__{self.model.digest}{kept}{FORMAT}"

    def about(self, collection: str) -> dict[str, Any]:
        """For the catalog."""
        about = {"table": self.table(collection), "format": FORMAT}
        return about | dataclasses.asdict(self)

    def differences(self, about: dict[str, Any]) -> list[str]:
        """In what a table, described in a catalog, differs from this one."""
        found = self.model.differences(about["model"])
        for name in ("dtype", "quantization"):
            there, here = about["layout"][name], getattr(self.layout, name)
            if there != here:
                found.append(f"{name} ({there} there, {here} here)")
        if (there := _format(about)) != FORMAT:
            found.append(f"storage format ({there} there, {FORMAT} here)")
        return found


def is_table_of(table: str, collection: str) -> bool:
    """Whether a table is one of a collection, whose name may begin that of another collection."""
    return re.fullmatch(rf"{collection}__[0-9a-f]{{12}}(16|32)[nib]\d*", table) is not None


def _format(about: dict[str, Any]) -> int:
    return int(about.get("format", 1))


def check_name(collection: str) -> None:
    """Refuse a name that cannot be part of a table's name.

    Raises:
        ValueError: It cannot.
    """
    if not _NAME.fullmatch(collection):
        raise ValueError(
            f"collection: {collection!r}: give up to 30 small letters, digits and _, a letter first"
        )


def find_live(store: Store, collection: str) -> dict[str, Any]:
    """What the catalog says of a collection.

    Raises:
        ValueError: There is none.
    """
    check_name(collection)
    catalog = store.catalog()
    if collection not in catalog:
        known = f"there are {', '.join(sorted(catalog))}" if catalog else "the store has none yet"
        raise ValueError(
            f"collection: there is no {collection!r}; {known}; create it with scripts/index.py"
        )
    return catalog[collection]


def open_live(store: Store, collection: str, model: Fingerprint) -> Table:
    """Open the live table of a collection for a model.

    Args:
        store: The database.
        collection: Its name there.
        model: The one that searches. It embeds queries, so it does not matter where it cuts
            documents.

    Raises:
        ValueError: There is no such collection, or another model or version of Tandem made it.
    """
    about = find_live(store, collection)
    if (there := _format(about)) != FORMAT:
        raise ValueError(
            f"collection: {collection!r} was indexed by another version of Tandem, in another "
            f"storage format ({there} there, {FORMAT} here); re-index with scripts/index.py "
            "--migrate true"
        )
    made = about["model"] | {"max_length": model.max_length}
    if found := model.differences(made):
        raise ValueError(
            f"collection: {collection!r} was indexed by another model ({about['name']}): the "
            f"{', '.join(found)} differ; {REMEDY}"
        )
    return store.open(about["table"], Layout(**about["layout"]))
