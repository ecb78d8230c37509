"""The syntax of Liberty files: groups, attributes and lists."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

TOKEN = re.compile(
    r'/\*.*?\*/|//[^\n]*|\\\r?\n|\s+|("(?:[^"\\]|\\.)*")|([{}();:,])|([^\s{}();:,"]+)', re.DOTALL
)


class LibertyError(Exception):
    """The text is no Liberty file, or one without what synthesis needs; the message says what is wrong."""


@dataclass
class Group:
    """`name (args) { attributes; groups }`."""

    name: str
    args: list[str]
    attributes: dict[str, list[str]] = field(default_factory=dict)
    groups: list["Group"] = field(default_factory=list)

    def all(self, name: str) -> Iterator["Group"]:
        """Its groups of that name."""
        return (group for group in self.groups if group.name == name)

    def get(self, name: str, default: str = "") -> str:
        """An attribute's value."""
        return self.attributes.get(name, [default])[0]

    def number(self, name: str, default: float = 0.0) -> float:
        """An attribute's value as a number.

        Raises:
            LibertyError: it is none.
        """
        return number(self.get(name, str(default)))


def read(text: str) -> Group:
    """The library that a Liberty file's text holds.

    Raises:
        LibertyError: it is in another syntax.
    """
    return _Reader(text).library()


def number(word: str) -> float:
    """A number in a Liberty file.

    Raises:
        LibertyError: the word is none.
    """
    try:
        return float(word)
    except ValueError as error:
        raise LibertyError(f"{word!r} is no number") from error


class _Reader:
    """Recursive descent over the tokens of a Liberty file."""

    def __init__(self, text: str) -> None:
        self.tokens = self._tokens(text)
        self.at = 0

    @staticmethod
    def _tokens(text: str) -> list[str]:
        tokens, at = [], 0
        while at < len(text):
            found = TOKEN.match(text, at)
            if found is None:
                line = text.count("\n", 0, at) + 1
                raise LibertyError(f"line {line} is not in its syntax")
            at = found.end()
            if token := found[1] or found[2] or found[3]:
                tokens.append(token)
        return tokens

    def library(self) -> Group:
        """The file's one group."""
        if self._next() != "library":
            raise LibertyError("it does not begin with a library")
        return self._group("library", self._args())

    def _next(self) -> str:
        if self.at == len(self.tokens):
            raise LibertyError("it ends too early")
        self.at += 1
        return self.tokens[self.at - 1]

    def _peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def _expect(self, token: str) -> None:
        found = self._next()
        if found != token:
            raise LibertyError(f"there is {found!r} where {token!r} should be")

    def _args(self) -> list[str]:
        self._expect("(")
        args = []
        while (token := self._next()) != ")":
            if token != ",":
                args.append(token.strip('"'))
        return args

    def _group(self, name: str, args: list[str]) -> Group:
        group = Group(name, args)
        self._expect("{")
        while (token := self._next()) != "}":
            if token != ";":
                self._statement(group, token)
        return group

    def _statement(self, group: Group, name: str) -> None:
        if self._peek() == ":":
            self._next()
            words = []
            while self._peek() not in (";", "}"):
                words.append(self._next().strip('"'))
            group.attributes[name] = [" ".join(words)]
            return
        args = self._args()
        if self._peek() == "{":
            group.groups.append(self._group(name, args))
        else:
            group.attributes[name] = args
