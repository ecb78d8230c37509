"""No output of any command destroys an input or another output, and figures come first."""

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vrex import sw
from vrex.errors import UserError
from vrex.sw.cli import main as cli
from vrex.sw.cli.arguments import OUTPUT_HTML, OUTPUT_PNG, PathType, Role
from vrex.sw.cli.paths import CommandFiles, kept_beside
from vrex.sw.evaluation.reports import heatmap
from vrex.sw.evaluation.reports.title import shown

VIDEO = b"a video"
WORDS_FOR_PATHS = ("FILE", "DIR", "OUT")
NO_FILES = {
    ("regress", "config"),
    ("fpga", "nextpnr"),
    *(("perf", name) for name in ("system", "method", "model", "vision")),
}
"""Options whose words are names as long as no file is there."""
NAMED_LIKE_PATHS = ("path", "file", "folder", "dir", "output", "json", "png", "html", "cache", "model")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VREX_CACHE", str(tmp_path / "own cache"))
    (tmp_path / "d").mkdir()
    (tmp_path / "e").symlink_to("d")
    (tmp_path / "d" / "film.mp4").write_bytes(VIDEO)
    monkeypatch.chdir(tmp_path / "d")
    return tmp_path / "d"


@cache
def _options() -> list[tuple[str, argparse.Action]]:
    """Every option of every command."""
    parser = cli.build_parser(list(cli._COMMANDS))
    subparsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return [(name, action) for name in cli._COMMANDS for action in subparsers.choices[name]._actions]


def _given(*words: str) -> CommandFiles:
    args = cli.build_parser(words).parse_args(words)
    return CommandFiles.of(args, args.options)


# -- that nothing escapes ----------------------------------------------------------------------------------


def test_every_option_that_names_a_path_says_what_is_done_with_it() -> None:
    """A new option for a file must have one of the types of `vrex.sw.cli.arguments`."""
    typed = 0
    for command, action in _options():
        words = set(str(action.metavar or "").replace("|", " ").replace("[", " ").split())
        looks = bool(words & set(WORDS_FOR_PATHS)) or action.dest in NAMED_LIKE_PATHS
        is_path = isinstance(action.type, PathType)
        assert is_path or not looks or action.nargs == 0, f"{command}: {action.option_strings}"
        assert action.type is not Path, f"{command}: {action.option_strings}"
        typed += is_path
    assert typed > 35


def test_commands_write_by_way_of_their_files_alone() -> None:
    """`CommandFiles.write` compares once more; nothing else writes in a command's module."""
    for source in sorted((Path(sw.__path__[0]) / "cli").glob("*.py")):
        if source.name == "paths.py":
            continue
        called = [
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            for node in ast.walk(ast.parse(source.read_text()))
            if isinstance(node, ast.Call)
        ]
        assert not {"write_file", "write_text", "write_bytes", "savefig"} & set(called), source


def _words(command: str, **given: str) -> list[str]:
    """A command line with these options and whatever else the command needs."""
    words = [command]
    for option in [action for name, action in _options() if name == command]:
        value = given.pop(option.dest, None)
        if value is None and option.required:
            value = next(iter(option.choices)) if option.choices else f"some-{option.dest}"
        if value is not None:
            words += [*option.option_strings[-1:], value]
    assert not given
    return words


def _pairs() -> Iterator[tuple[str, str, str]]:
    """Command, an output and another input or output, of all commands."""
    for command in cli._COMMANDS:
        own = {
            a.dest: a.type.role for name, a in _options() if name == command and isinstance(a.type, PathType)
        }
        for output, role in own.items():
            for other in own:
                written = role in (Role.WRITTEN, Role.RESUMED)
                if written and other != output and own[other] is not Role.FILLED:
                    yield command, output, other


@pytest.mark.parametrize(("command", "output", "other"), list(_pairs()))
def test_no_two_options_name_the_same_file(command: str, output: str, other: str, folder: Path) -> None:
    """By whatever name: through a link to the folder, a hard link, or `..`."""
    (folder / "it").write_bytes(VIDEO)
    (folder / "it2").hardlink_to(folder / "it")
    for name in ("it", "../e/it", "../d/../e/it", "it2"):
        with pytest.raises(UserError, match=r"overwrite|both name"):
            _given(*_words(command, **{output: name, other: "it"}))
    for name in ("new", "../e/new", "./../d/new"):
        if (command, other) in NO_FILES:
            continue
        with pytest.raises(UserError, match=r"overwrite|both name|cannot be read"):
            _given(*_words(command, **{output: name, other: "new"}))
    assert (folder / "it").read_bytes() == VIDEO


@pytest.mark.parametrize(
    "words", [["run", "--video", "film.mp4"], ["eval"], ["eval-coin"], ["figures", "ratio"]]
)
def test_no_output_goes_into_a_folder_that_is_read(words: list[str], folder: Path) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    (folder / "linked.json").symlink_to("model/config.json")
    more = ["--annotations", "film.mp4", "--videos", "."] if words == ["eval-coin"] else []
    for name in ("model/config.json", "model/new.json", "../e/model/new.json", "linked.json"):
        with pytest.raises(UserError, match="lies in --model model, which is read"):
            _given(*words, *more, "--model", "model", "--json", name)
    _given(*words, *more, "--model", "model", "--json", "model.json")


# -- derived names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "--video", "film.mp4", "--json", "film.json"], "the video or its sidecar"),
        (["run", "--video", "film.mp4", "--json", "../e/film.json"], "the video or its sidecar"),
        (["run", "--video", "../link.mp4", "--json", "film.json"], "the video or its sidecar"),
        (
            ["run", "--video", "film.mp4", "--cache", "k.png", "--json", "k.json"],
            "--cache and --png (by default)",
        ),
        (["run", "--video", "film.mp4", "--cache", "k", "--json", "k.journal"], "the journal of --cache"),
        (["run", "--video", "film.mp4", "--cache", "k", "--json", "k.journal.new"], "journal of --cache"),
        (["run", "--video", "k.calibration.npz", "--json", "k.json"], "k.calibration.npz would overwrite"),
        (["run", "--video", "vrex-run.png"], "vrex-run.png would overwrite --video"),
        (["run", "--video", "film.mp4", "--json", "own/embeddings/x.npy"], "what vrex keeps"),
        (["eval", "--json", "a.json", "--html", "a.cells.jsonl"], "does not end in .html"),
        (["eval-text", "--json", "a.json", "--text", "a.cells.jsonl"], "would overwrite --text"),
        (["figures", "ratio", "--json", "a.png"], "--json and --png (by default) both name"),
        (["bench", "lxe", "--liberty", "a.png", "--json", "a.json"], "would overwrite --liberty"),
        (["generate", "--config", "vrex_dre.json", "-o", "../e"], "would overwrite --config"),
        (["regress", "--config", "junit.xml", "-o", "../e"], "would overwrite --config"),
        (["procstream", "1", "-o", "link.mp4"], "the sidecar of --output"),
        (["procstream", "--bayes", "--json", "a.png"], "both name"),
    ],
)
def test_derived_names_count_too(
    words: list[str],
    says: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VREX_CACHE", str(folder / "own"))
    (folder / "own" / "embeddings").mkdir(parents=True)
    (folder.parent / "link.mp4").symlink_to("d/film.mp4")
    for name in ("vrex_dre.json", "junit.xml"):
        assert cli.main(["config", "--preset", "tiny"]) == 0
        (folder / name).write_text(capsys.readouterr().out.replace('"tiny"', '"own"'))
    (folder / "link.json").touch()
    (folder / "link.mp4").symlink_to("link.json")
    for name in ("k.calibration.npz", "vrex-run.png", "a.cells.jsonl"):
        (folder / name).write_bytes(VIDEO)
    if "a.png" in words[:4]:
        (folder / "a.png").write_bytes(VIDEO)
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.count("\n") == 1


def test_videos_of_a_folder_that_is_searched_are_inputs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = CommandFiles()
    files.add_output(Path("film.mp4"), "--json")
    with pytest.raises(UserError, match=r"film\.mp4 would overwrite a video of --videos"):
        files.add_input(folder.parent / "e" / "film.mp4", "a video of --videos")


def test_links_that_change_during_a_run_are_seen(folder: Path) -> None:
    files = _given("run", "--video", "film.mp4", "--json", "out.json")
    (folder / "out.json").symlink_to("film.mp4")
    with pytest.raises(UserError, match="would overwrite --video"):
        files.write(Path("out.json"), b"{}")
    assert (folder / "film.mp4").read_bytes() == VIDEO


def test_devices_hold_nothing_that_could_be_lost() -> None:
    _given("run", "--video", "procstream:1", "--json", os.devnull, "--png", os.devnull)
    with pytest.raises(UserError, match="both name"):
        _given("run", "--video", "procstream:1", "--json", "-", "--png", "/dev/fd/1")


def test_standard_output_that_goes_to_an_output_or_input_is_refused(folder: Path) -> None:
    for words in (["run", "--video", "procstream:1", "--json", "o"], ["config", "--config", "o"]):
        with (folder / "o").open("wb") as out:
            done = subprocess.run(
                [sys.executable, "-m", "vrex", *words], stdout=out, stderr=subprocess.PIPE, text=True
            )
        assert done.returncode == 2
        assert "vrex: error: standard output" in done.stderr


# -- what a name says --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.jpg", "x.svg", "x.PDF", "x.png.gz", "x.webp"])
def test_a_picture_of_another_kind_is_refused_before_the_run(name: str) -> None:
    for words in (
        ["run", "--video", "film.mp4"],
        ["figures", "ratio", "--json", "a"],
        ["eval-text", "--json", "a"],
    ):
        with pytest.raises(UserError, match=rf"{name} does not end in \.png"):
            _given(*words, "--png", name)


def test_names_that_fit() -> None:
    for name in ("x.png", "x.PNG", "x"):
        assert OUTPUT_PNG.fits(Path(name))
    assert OUTPUT_HTML.fits(Path("x.htm"))
    for word in ("", "x/"):
        with pytest.raises(argparse.ArgumentTypeError):
            OUTPUT_PNG(word)
    assert OUTPUT_PNG("./-") != OUTPUT_PNG("-")


# -- figures first -----------------------------------------------------------------------------------------

RATIO: list[list[float | None]] = [[0.5, None]]


@pytest.fixture
def result() -> dict[str, Any]:
    return {"ratio": {"per_layer_head": RATIO}, "bad": "caf\udce9", "none": np.nan}


def test_a_picture_that_fails_costs_a_warning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = CommandFiles()
    files.add_output(Path("x.png"), "--png")

    def draw() -> bytes:
        raise RuntimeError("no\nfont")

    assert not files.try_write(Path("x.png"), draw, "the picture x.png")
    assert capsys.readouterr().err == "vrex: warning: the picture x.png was left out: no font\n"
    (folder / "x.png").mkdir()
    assert not files.try_write(Path("x.png"), lambda: b"", "the picture x.png")
    assert "it is a folder" in capsys.readouterr().err


def test_figures_that_cannot_be_written_end_the_command_after_its_table(
    folder: Path, result: dict[str, Any]
) -> None:
    (folder / "full").symlink_to("/dev/full")
    files = CommandFiles()
    files.add_output(Path("full"), "--json")
    assert not files.write_json(Path("full"), result, 1)
    with pytest.raises(UserError, match="cannot write full: No space left"):
        files.check_written()


def test_figures_hold_any_name(folder: Path, result: dict[str, Any]) -> None:
    files = CommandFiles()
    files.add_output(Path("caf\udce9.json"), "--json")
    assert files.write_json(Path("caf\udce9.json"), result, 1)
    files.check_written()
    assert json.loads((folder / "caf\udce9.json").read_bytes())["bad"] == "caf\\xe9"


@pytest.mark.parametrize(
    "name", ["$5_{.mp4", "caf\udce9.mp4", "映画.mp4", "$a_{b$.mp4", "a\n\tb\x07.mp4", r"\frac{", "😀"]
)
def test_any_name_can_be_drawn(name: str, recwarn: pytest.WarningsRecorder) -> None:
    assert heatmap.ratio_heatmap(RATIO, shown(name)).startswith(b"\x89PNG")
    assert not recwarn.list
    assert "\n" not in shown(name)


def test_results_beside_which_nothing_stands_keep_nothing(folder: Path) -> None:
    before = sorted(folder.iterdir())
    with kept_beside(Path(os.devnull), CommandFiles()) as kept:
        assert not kept.lasting
        kept.cells.touch()
    assert not kept.cells.exists()
    with kept_beside(Path("out.json"), CommandFiles()) as kept:
        assert (kept.cells, kept.lasting) == (Path("out.cells.jsonl"), True)
    assert sorted(folder.iterdir()) == before


def test_a_whole_run_with_a_name_of_any_bytes(folder: Path) -> None:
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # all of it ASCII
    name = os.fsdecode(b"caf\xe9 $5_{ \xe6\x98\xa0.mp4")
    assert cli.main(["procstream", "7", "--frames", "6", "-o", "v.mp4"]) == 0
    shutil.copy("v.mp4", name)
    words = ["run", "--video", name, "--policy", "full", "--frames", "2", "--json", name + ".o"]
    done = subprocess.run(
        [sys.executable, "-m", "vrex", *words, "--png", name + ".png", "--ask", "0: now"],
        env={**os.environ, **environment},
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    done.stdout.decode("ascii")
    figures = json.loads(Path(name + ".o").read_bytes())
    assert figures["settings"]["video"] == "caf\\xe9 $5_{ 映.mp4"
    assert Path(name + ".png").read_bytes().startswith(b"\x89PNG")


def test_a_question_of_no_utf8_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--video", "film.mp4", "--ask", "1: caf\udce9"]) == 2
    assert "is not UTF-8; write the question in UTF-8" in capsys.readouterr().err
