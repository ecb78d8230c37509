"""Reference of the configuration, from its dataclasses."""

from vrex.model.config_file import reference

HEAD = """# Configuration

Every dimension of the hardware stands once, in `vrex.model.config`: a tree of frozen dataclasses. RTL, golden
model, benches and generated files derive from it, and a value out of its range is refused when the object is
made. This page is generated from those classes while the site is built.

```python
from dataclasses import replace

from vrex.model.config import HcuConfig, preset

config = replace(preset("tiny"), hcu=HcuConfig(lanes=8, chunk_tokens=16, tile_clusters=64))
```

On the command line, `--preset NAME` takes a preset, `--config FILE.toml` a file of your own (`vrex config`
prints one to change), and `--param hcu.lanes=8` sets a single field of either.

`edge` is the paper's core; `edge8` and `server48` are its two chips, with 8 and 48 of that core. `ulx3s` is
cut for an ECP5-85F board; `tiny` simulates fast.

"""


def page() -> str:
    """The page, as Markdown."""
    return HEAD + reference()
