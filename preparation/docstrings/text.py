"""Parse a docstring: strip its markup, split summary from body, filter poor text."""

import re

MIN_DOCUMENT_CHARACTERS = 120
MAX_DOCUMENT_CHARACTERS = 2000
MIN_DOCSTRING_CHARACTERS = MIN_DOCUMENT_CHARACTERS + 20  # of the summary

# Sections that are not about the thing itself, and directives that go with their body.
_DROPPED_SECTIONS = re.compile(
    r"see ?also|references?|examples?|methods?|doctest|usage|warnings?|(example|sample) usage|"
    r"usage examples?|note on examples|authors?|copyright|license|todo|contents|links|"
    r"inheritance diagram"
)
_SECTIONS = re.compile(
    rf"{_DROPPED_SECTIONS.pattern}|((other |keyword )?(parameters|params|args|arguments))|"
    r"returns?|yields?|raises|warns|notes?|attributes|explanation|description|inputs?|outputs?|"
    r"shape|receives|properties|members|limitations|algorithm|options"
)
_DROPPED_DIRECTIVES = re.compile(
    r"\.\. (versionadded|versionchanged|version-added|version-changed|deprecated|plot|seealso|"
    r"index|only|figure|image|include|currentmodule|autosummary|toctree|autoclass|autofunction|"
    r"automodule|automethod|doctest|testsetup|testcode|testoutput|rubric|module|moduleauthor|"
    r"sectionauthor|highlight|legacy|tags|jupyter-execute|bibliography|list-table|_[^:]*|\[[^]]*\])"
)
_MARKER = re.compile(r"\.\. [\w-]+ ?::\s*")
_UNDERLINE = re.compile(r"[-=~^*#+]{3,}")
_TABLE_RULE = re.compile(r"[|+ ]*[-=+| ]{3,}")

_INLINE = (
    (re.compile(r":[\w:+-]+:`([^`<]*[^`<\s])\s*<[^`]*>`"), r"\1"),  # :ref:`text <target>`
    (re.compile(r":[\w:+-]+:`(?:~(?:[\w.]+\.)?)?([^`]+)`"), r"\1"),  # :func:`~a.b`
    (re.compile(r"\[`(?:~(?:[\w.]+\.)?)?([^`\]]+)`\](?:\([^)]*\))?"), r"\1"),  # [`~Trainer`](link)
    (re.compile(r"\[([^\]\[]+)\]\(https?://[^)]*\)"), r"\1"),  # [text](link)
    (re.compile(r"`([^`<]+?)\s*<https?://[^`]*>`_*"), r"\1"),  # `text <link>`_
    (re.compile(r"``?([^`]+)``?_{0,2}"), r"\1"),  # ``code``, `name`, `link`_
    (re.compile(r"\s?\[(?:\d+|[A-Z]\w*)\]_"), ""),  # footnotes: [1]_
    (re.compile(r"\*\*([^*\n]+)\*\*"), r"\1"),  # **bold**
    (re.compile(r"(?<![\w*])\*(\w[^*\n]*)\*(?![\w*])"), r"\1"),  # *italic*
    (re.compile(r"</?[A-Za-z][^<>\n]{0,40}>(?=\s|$)|</?Tip[^<>]*>"), ""),  # <Tip warning={true}>
    (re.compile(r"\|(\w+)\|"), r"\1"),  # |substitution|
    (re.compile(r"^\s*(> ?)?(\[![A-Z]+\]|!!! \w+)$|^\s*> (?!>)", re.MULTILINE), ""),  # > [!TIP]
    (re.compile(r"\\([*_|`])"), r"\1"),  # \*args
    (re.compile(r"::$", re.MULTILINE), ":"),
    (re.compile(r"%\(\w+\)s"), ""),  # templates filled at import
    (re.compile(r"[ \t]+"), " "),
    (re.compile(r"Read more in the [^.]*\."), ""),
)


def clean(text: str) -> str:
    """Reduce a docstring to plain paragraphs: no markup, examples, references, version notes."""
    lines = _without_directives(text.expandtabs().splitlines())
    text = "\n".join(_without_sections(lines))
    # Doctests, and program listings: blocks that are no sentences.
    blocks = [block for block in re.split(r"\n\s*\n", text) if not _is_code(block)]
    text = "\n\n".join(block.strip("\n") for block in blocks)
    for pattern, replacement in _INLINE:
        text = pattern.sub(replacement, text)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.strip() for line in text.splitlines())).strip()


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _without_directives(lines: list[str]) -> list[str]:
    """Drop comments and directives that are not about the subject; keep the body of the others."""
    kept: list[str] = []
    dropping_deeper_than = -1
    for line in lines:
        stripped = line.strip()
        if dropping_deeper_than >= 0:
            if not stripped or _indent(line) > dropping_deeper_than:
                continue
            dropping_deeper_than = -1
        if stripped.startswith(".. "):
            if _DROPPED_DIRECTIVES.match(stripped) or not _MARKER.match(stripped):
                dropping_deeper_than = _indent(line)
                kept.append("")
                continue
            line = _MARKER.sub("", line)
        kept.append(line)
    return kept


def _without_sections(lines: list[str]) -> list[str]:
    """Drop the sections named above, headed ``Name\\n----`` or ``Name:``, up to the next header."""
    kept: list[str] = []
    dropping = False
    for place, line in enumerate(lines):
        stripped = line.strip()
        title = stripped.strip("*# ").rstrip(":").strip().lower()
        following = lines[place + 1].strip() if place + 1 < len(lines) else ""
        underlined = stripped[:1].isalpha() and bool(_UNDERLINE.fullmatch(following))
        ends_with_colon = (
            stripped.endswith(":") and _indent(line) <= 4 and bool(_SECTIONS.fullmatch(title))
        )
        if underlined or ends_with_colon or stripped.lower() == "see also":
            dropping = bool(_DROPPED_SECTIONS.fullmatch(title))
            if not dropping:
                kept.append(f"{stripped.rstrip(':')}:")
        elif not (dropping or _UNDERLINE.fullmatch(stripped) or _TABLE_RULE.fullmatch(stripped)):
            kept.append(line)
    return kept


_CODE = re.compile(
    r"^(import|from|with|for|def|class|return|print)\b.*[:(\w]$|^\w[\w.]* "
    r"?= ?\S|^[)\]}]|[{;]$|\w\(\S*\)$|^>>>|^\.\.\. "
)


def _is_code(block: str) -> bool:
    """Whether a block of lines is a doctest or a listing rather than sentences."""
    lines = [line.strip() for line in block.splitlines() if line.strip()]
    if not lines or lines[0].startswith((">>>", "```", "$ ", "% ", "#!", "In [")):
        return True
    code = sum(bool(_CODE.search(line)) for line in lines)
    return code > len(lines) / 2


# Not the end of a sentence: "e.g. ", "i.e. ", "vs. ", an initial.
_SENTENCE_END = re.compile(
    r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!vs\.)(?<!cf\.)(?<!etc\.)\s+(?=[A-Z\d`'\"(])"
)
_SIGNATURE = re.compile(r"[\w.]+\s?\(.*\)?(\s*->.*)?\.?|[\w.]+\s*=\s*[\w.]+\(.*", re.DOTALL)


def split_summary(text: str) -> tuple[str, str]:
    """(first sentence, everything after it) of a cleaned docstring.

    A signature that opens the docstring, as in ``f(a, b) -> array``, is no summary and is left out.
    """
    paragraph, _, rest = text.partition("\n\n")
    while _SIGNATURE.fullmatch(paragraph) and rest:
        paragraph, _, rest = rest.partition("\n\n")
    sentences = _SENTENCE_END.split(" ".join(paragraph.split()), maxsplit=1)
    remainder = [*sentences[1:], rest]
    return sentences[0], "\n\n".join(part for part in remainder if part)


def shortened(document: str) -> str:
    """Cut a document to ``MAX_DOCUMENT_CHARACTERS``, at the end of a line or else of a word."""
    if len(document) <= MAX_DOCUMENT_CHARACTERS:
        return document
    start = document[: MAX_DOCUMENT_CHARACTERS + 1]
    return (start.rpartition("\n")[0] or start.rpartition(" ")[0] or start[:-1]).rstrip()


_BOILERPLATE = re.compile(
    r"(initiali[sz]e self|see |deprecated|alias |same as|helper|todo|internal|private|unit test|"
    r"tests? |example|usage|copyright|parameters|returns?:|args|arguments|notes?:|note |this file|"
    r"constructor|initiali[sz]es? the|dummy|placeholder|equivalent to|overrid|overload|"
    r"convenience|wrapper|implements? |a wrapper|refer to|docstring|warning|not implemented|"
    r"base class|abstract|mixin|backwards?|authors?|module for|this module|default implementation|"
    r"like |similar to|calls? |delegates|raises? |raised |inherits?|subclass|http|version|license)",
    re.IGNORECASE,
)
_STOP_WORDS = re.compile(
    r"and|any|are|can|each|for|from|given|has|have|into|its|new|not|one|returns?|set|get|that|the|"
    r"their|them|then|this|two|used?|using|when|whether|which|with|you|your|values?|objects?|class|"
    r"functions?|methods?|arrays?|none|true|false|instances?|data|lists?|computes?"
)


def content_stems(text: str) -> set[str]:
    """Return crude stems: the first five letters of each content word."""
    words = re.findall(r"[a-z]{3,}", text.lower())
    return {word[:5] for word in words if not _STOP_WORDS.fullmatch(word)}


_NO_LETTER = re.compile(r"[^\w\s]|[\d_]")
_UNWRITABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u2028\u2029\ud800-\udfff\ufffd]")


def _letters(text: str) -> float:
    return 1 - len(_NO_LETTER.findall(text)) / len(text)


def query_fault(query: str) -> str | None:
    """Return the reason to drop a summary as a query, or None."""
    words = query.split()
    if len(words) < 4 or len(query) < 20:
        return "summary too short"
    if len(words) > 30 or len(query) > 200:
        return "summary too long"
    if _BOILERPLATE.match(query):
        return "summary is boilerplate"
    if query.endswith((":", ",", "...", "(")) or not query[0].isupper():
        return "summary is no sentence"
    if _letters(query) < 0.85 or re.search(r"->|>>>|==|\w\(\w*\)|[$\\|{}]|--|^\w+ = |://", query):
        return "summary is code"
    if len(content_stems(query)) < 2:
        return "summary says nothing of its own"
    return None


def document_fault(document: str, query: str) -> str | None:
    """Return the reason to drop a body as the document of its summary, or None."""
    if _UNWRITABLE.search(document):
        return "rest holds control characters or lone surrogates"
    if len(document.split()) < 25 or len(document) < MIN_DOCUMENT_CHARACTERS:
        return "rest too short"
    if _letters(document) < 0.7:
        return "rest is code"
    if max(len(line.split()) for line in document.splitlines()) < 7:
        return "rest is a list of names"
    if " ".join(query.lower().split()).rstrip(".") in " ".join(document.lower().split()):
        return "rest repeats the summary"
    if not content_stems(query) & content_stems(document):
        return "rest shares no word with the summary"
    return None
