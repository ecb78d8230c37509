"""What MkDocs calls while it builds the site: it adds the generated pages and the waveforms."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from scripts.docs import configuration, ports
from scripts.docs.handshakes import WAVEFORMS
from scripts.docs.waveform import render

ROOT = Path(__file__).parents[2]
PAGES: dict[str, Callable[[], str]] = {"ports.md": ports.page, "configuration.md": configuration.page}
COPIED = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
MARK = re.compile(r"<!-- waveform: ([\w-]+) -->")


def on_files(files: Files, config: Any) -> Files:
    """Adds the generated pages, and those that stand in the root of the repository."""
    for name, make in PAGES.items():
        files.append(File.generated(config, name, content=make()))
    for name, source in COPIED.items():
        # Their links start at the root of the repository, the site's in `docs`.
        text = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts each waveform in its place."""
    return MARK.sub(lambda mark: f"<div>{render(mark[1], WAVEFORMS[mark[1]]())}</div>", markdown)
