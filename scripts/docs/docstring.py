"""Google-style docstrings, as far as the generated pages need them."""

import inspect
import re
from typing import Any


def summary(owner: Any) -> str:
    """The docstring up to its first section, as Markdown paragraphs."""
    text = inspect.cleandoc(owner.__doc__ or "")
    return re.split(r"(?m)^(?:Args|Attributes|Members|Ports|Raises|Returns):$", text)[0].strip()


def items(owner: Any, *sections: str) -> dict[str, str]:
    """The items of the named sections: text by name, in one line; `a, b: text` gives both the text."""
    found: dict[str, str] = {}
    names: list[str] = []
    inside = False
    for line in inspect.cleandoc(owner.__doc__ or "").splitlines():
        if heading := re.fullmatch(r"(\w+):", line):
            inside = heading[1] in sections
        elif line and not line.startswith(" "):
            inside = False
        elif inside and (item := re.fullmatch(r" {4}([\w*]+(?:, [\w*]+)*): (.*)", line)):
            names = item[1].split(", ")
            found |= dict.fromkeys(names, item[2])
        elif inside and line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found
