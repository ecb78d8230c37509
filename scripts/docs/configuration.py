"""Reference of the configuration, from its dataclasses."""

import dataclasses
from typing import Any, get_type_hints

from scripts.docs import docstring
from vrex.model.config import PRESETS, Config

HEAD = """# Configuration

Every dimension of the hardware stands once, in `vrex.model.config`: a tree of frozen dataclasses. RTL, golden
model, benches and generated files derive from it, and a value out of its range is refused when the object is
made. This page is generated from those classes while the site is built.

```python
from dataclasses import replace

from vrex.model.config import HcuConfig, preset

config = replace(preset("tiny"), hcu=HcuConfig(lanes=8, chunk_tokens=16, tile_clusters=64))
```

`edge` is the paper's core; `edge8` and `server48` are its two chips, with 8 and 48 of that core. `ulx3s` is
cut for an ECP5-85F board; `tiny` simulates fast.
"""


def page() -> str:
    """The page, as Markdown."""
    chip = {name: kind for name, kind in get_type_hints(Config).items() if not dataclasses.is_dataclass(kind)}
    parts = [HEAD, section("Chip", Config, list(chip), lambda config: config)]
    for name, kind in get_type_hints(Config).items():
        if dataclasses.is_dataclass(kind):
            fields = [field.name for field in dataclasses.fields(kind)]
            parts.append(section(name, kind, fields, lambda config, name=name: getattr(config, name)))
    return "\n".join(parts)


def section(title: str, owner: Any, fields: list[str], part: Any) -> str:
    """One class: a row a field, its value in each preset."""
    described = docstring.items(owner, "Attributes")
    lines = [
        f"## {title}",
        "",
        docstring.summary(owner),
        "",
        f"Class `vrex.model.config.{owner.__name__}`.",
        "",
    ]
    lines += [f"| field | meaning | {' | '.join(f'`{name}`' for name in PRESETS)} |"]
    lines += [f"|---|---|{'---:|' * len(PRESETS)}"]
    for field in fields:
        values = [str(getattr(part(config), field)) for config in PRESETS.values()]
        lines.append(f"| `{field}` | {described.get(field, '').rstrip('.')} | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"
