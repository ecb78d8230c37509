"""Real text to read, cut into documents, with needles hidden in it.

A needle says `The special magic number for KEY is VALUE. Remember ...`, much as in RULER's key-value needles;
after the document each is asked for in the needle's own words, which a small model can complete.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vrex.errors import UserError

TOPICS = ("types", "compound", "specialnames", "string-methods", "debugger")
"""Pages of Python's own language reference, which hardly share a paragraph, in this order."""
CALIBRATION_TOPIC = "formatstrings"
"""A page apart from those, for policies that need a calibration."""

_NOUNS = (
    "apple river candle mountain violin harbor lantern garden pepper saddle window falcon "
    "copper basket ladder island engine feather marble orchard pencil rocket spider temple"
)
KEYS = _NOUNS.split()
DIGITS = 7
NEEDLE = (
    "\n\nThe special magic number for {0} is {1}. Remember that the special magic number for {0} is {1}.\n\n"
)
QUESTION = "\n\nThe special magic number for {0} is"
ANSWER = " {0}"

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Corpus:
    """Text.

    Attributes:
        name: where it is from.
        text: all of it.
        calibration: other text.
    """

    name: str
    text: str
    calibration: str

    @property
    def digest(self) -> str:
        """SHA-256 of what is read."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def python_topics() -> Corpus:
    """The language reference that Python's own `help()` shows; every version of Python has its own.

    Raises:
        UserError: this Python came without it.
    """
    try:
        from pydoc_data.topics import topics

        pages = [topics[name] for name in (*TOPICS, CALIBRATION_TOPIC)]
    except (ImportError, KeyError) as error:
        raise UserError(
            "this Python has no pages for `help()` (pydoc_data.topics); name a file of prose with --text"
        ) from error
    return Corpus("pydoc_data.topics: " + ", ".join(TOPICS), "\n\n".join(pages[:-1]), pages[-1])


def read_corpus(path: Path) -> Corpus:
    """A text file; its last tenth is kept for calibration.

    Raises:
        UserError: it can't be read or is not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name another file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text; name another file") from error
    kept = len(text) * 9 // 10
    return Corpus(path.name, text[:kept], text[kept:])


@dataclass(frozen=True)
class Asked:
    """A needle as it is asked for.

    Attributes:
        key, value: what it says.
        depth: share of the document before it, 0 to 1.
        question, answer: ids.
    """

    key: str
    value: str
    depth: float
    question: list[int]
    answer: list[int]


@dataclass(frozen=True)
class Document:
    """What is read, and what is asked after it.

    Attributes:
        ids: of prose and needles.
        prose: bool [ids]: which of them are prose.
        asked: needles, in the order of the questions.
    """

    ids: np.ndarray
    prose: np.ndarray
    asked: list[Asked]


def cut(corpus: Corpus, encode: Encode, tokens: int, count: int) -> list[list[int]]:
    """The first documents of a text, so many tokens each.

    Raises:
        UserError: the text is too short.
    """
    ids = encode(corpus.text)
    if len(ids) < tokens * count:
        raise UserError(
            f"{corpus.name} has {len(ids):,} tokens, too few for {count} texts of {tokens:,}; "
            "ask for fewer or shorter ones, or name a longer file with --text"
        )
    return [ids[start : start + tokens] for start in range(0, tokens * count, tokens)]


def hide(
    prose: Sequence[int], needles: int, seed: int, encode: Encode, decode: Callable[[list[int]], str]
) -> Document:
    """Hides needles between paragraphs, as evenly as these allow from the very beginning to the very end.

    Args:
        prose: ids of the text.
        needles: how many, 1 to len(KEYS); a single one stands in the middle.
        seed: of keys, values and the order of the questions.
        encode, decode: text to ids and back.

    Raises:
        UserError: the text has too few paragraphs.
    """
    rng = np.random.default_rng(seed)
    keys = rng.choice(KEYS, needles, replace=False).tolist()
    values = ["".join(map(str, rng.integers(0, 10, DIGITS))) for _ in keys]
    places = _places(prose, needles, decode)
    pieces: list[tuple[Sequence[int], bool]] = []
    before = 0
    for key, value, place in zip(keys, values, places, strict=True):
        pieces += [(prose[before:place], True), (encode(NEEDLE.format(key, value)), False)]
        before = place
    pieces.append((prose[before:], True))
    asked = [
        Asked(key, value, place / len(prose), encode(QUESTION.format(key)), encode(ANSWER.format(value)))
        for key, value, place in zip(keys, values, places, strict=True)
    ]
    return Document(
        ids=np.concatenate([np.asarray(piece, dtype=np.int64) for piece, _ in pieces]),
        prose=np.concatenate([np.full(len(piece), is_prose) for piece, is_prose in pieces]),
        asked=[asked[i] for i in rng.permutation(needles)],
    )


def _places(prose: Sequence[int], needles: int, decode: Callable[[list[int]], str]) -> list[int]:
    """Where needles go: the breaks between paragraphs nearest to evenly spaced places, each its own."""
    # A blank line may be one token or two.
    ends = [i + 1 for i in range(len(prose)) if decode(list(prose[max(i - 1, 0) : i + 1])).endswith("\n\n")]
    free = sorted({0, *ends, len(prose)})
    if len(free) < needles:
        raise UserError(
            f"a text of {len(prose):,} tokens has {len(free)} places between paragraphs, too few for "
            f"{needles} needles; ask for fewer --needles, or name a text with more blank lines"
        )
    wanted = np.linspace(0, len(prose), needles) if needles > 1 else np.array([len(prose) / 2])
    taken = []
    for place in wanted:
        nearest = min(free, key=lambda end: abs(end - place))
        free.remove(nearest)
        taken.append(nearest)
    return sorted(taken)
