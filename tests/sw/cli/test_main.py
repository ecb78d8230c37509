"""The command line's frame: exit codes, one sentence for each mistake, quick help."""

import argparse
import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from vrex import sw
from vrex.errors import UserError
from vrex.sw.cli import main as cli
from vrex.sw.cli import procstream, run
from vrex.sw.retrieval.policies.resv_settings import ResvSettings


def _fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Runs a command line that must be the user's mistake and returns its one sentence."""
    assert cli.main(list(words)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("vrex: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def _parse(*words: str) -> argparse.Namespace:
    return cli.build_parser(words).parse_args(words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["rum"], "invalid choice: 'rum' (choose from"),
        (["run"], "the following arguments are required: --video"),
        (["run", "--video", "x", "--policy", "best"], "invalid choice: 'best' (choose from"),
        (["run", "--video", "x", "--rule", "soft"], "invalid choice: 'soft' (choose from"),
        (["run", "--video", "x", "--preset", "huge"], "unknown preset 'huge': choose one of tiny, "),
        (["run", "--video", "x", "--frames", "0"], "'0' is not a whole number of at least 1"),
        (["run", "--video", "x", "--fps", "nan"], "'nan' is not a number above 0"),
        (["run", "--video", "x", "--th-r", "much"], "invalid float value: 'much'"),
        (["run", "--video", "x", "--ask", "now"], "'now' is not of the form 'SECONDS: question'"),
        (["run", "--video", "x", "--ask", "-1: now"], "is not of the form 'SECONDS: question'"),
        (["run", "--video", "x", "--ask", "3: "], "is not of the form 'SECONDS: question'"),
        (
            ["run", "--video", "x", "--paper", "--th-hd", "7"],
            "--paper sets --th-hd itself; leave one of the two",
        ),
        (
            ["run", "--video", "x", "--policy", "full", "--sinks", "4"],
            "--sinks has no meaning with --policy full",
        ),
        (["run", "--video", "x", "--policy", "full", "--paper"], "--paper has no meaning with --policy full"),
        (["run", "--video", "x", "--policy", "full", "--backend", "rtl"], "--backend rtl has no meaning"),
        (
            ["run", "--video", "x", "--check"],
            "--check compares the RTL with the golden model; add --backend rtl",
        ),
        (["run", "--video", "x", "--json", "/nowhere/out.json"], "the folder /nowhere does not exist"),
        (["run", "--video", "x", "--json", "a.png", "--png", "a.png"], "--json and --png both name a.png"),
        (["run", "--video", "a.mp4", "--json", "a.json"], "a.json would overwrite the video or its sidecar"),
        (["run", "--video", "procstream:one"], "'one' is not a seed"),
        (["run", "--video", "procstream:-1"], "'-1' is not a seed"),
        (["run", "--video", "procstream:hardest:1"], "no level 'hardest'"),
        (["run", "--video", "procstream:hard:"], "'' is not a seed"),
        (["procstream", "-1", "-o", "x.mp4"], "-1"),
        (["procstream", "1", "-o", "x.avi"], "x.avi does not end in .mp4"),
        (["procstream", "1", "-o", "/nowhere/x.mp4"], "the folder /nowhere does not exist"),
        (["generate", "--preset", "huge", "-o", "x"], "unknown preset 'huge': choose one of tiny, "),
        (["regress", "--config", "huge"], "unknown configuration 'huge': choose one of tiny, "),
        (["bench", "encoder", "--json", "-"], "invalid choice: 'encoder' (choose from"),
    ],
)
def test_a_mistake_gives_one_sentence(
    capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert says in _fails(capsys, *words)


def _sentence(node: ast.AST) -> str | None:
    """The text of a `UserError(...)`, its values shown as {}, or None where it is none."""
    match node:
        case ast.Call(func=ast.Name(id="UserError" | "DriverError"), args=[ast.Constant(value=str(text))]):
            return text
        case ast.Call(func=ast.Name(id="UserError" | "DriverError"), args=[ast.JoinedStr(values=parts)]):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)
    return None


def test_sentences_start_in_lower_case_and_have_no_full_stop() -> None:
    sources = sorted(Path(sw.__path__[0]).rglob("*.py"))
    nodes = [node for source in sources for node in ast.walk(ast.parse(source.read_text()))]
    sentences = [sentence for node in nodes if (sentence := _sentence(node))]
    assert len(sentences) > 80
    assert [text for text in sentences if re.match(r"[A-Z][a-z]* ", text) or text.endswith(".")] == []


def test_mistakes_leave_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "--video", "missing.mp4", "--json", "out.json"]) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (UserError("no such thing"), 2, "vrex: error: no such thing\n"),
        (KeyboardInterrupt(), 130, "vrex: interrupted\n"),
    ],
)
def test_exit_code_of_what_a_command_raises(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    raised: BaseException,
    code: int,
    says: str,
) -> None:
    def execute(args: argparse.Namespace) -> int:
        raise raised

    monkeypatch.setattr(procstream, "execute", execute)
    assert cli.main(["procstream", "1", "-o", "x.mp4"]) == code
    assert capsys.readouterr().err == says


def test_a_reader_who_left_is_no_error() -> None:
    script = (
        "import sys, vrex.sw.cli.main as c\n"
        "c.procstream.execute = lambda args: print('x' * 10**6) or 0\n"
        "sys.exit(c.main(['procstream', '1', '-o', 'x.mp4']))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run([sys.executable, "-c", script], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (result.returncode, result.stderr) == (0, "")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("vrex 0.")


@pytest.mark.parametrize(("words", "shows"), [(["--help"], "COMMAND"), (["run", "--help"], "--video")])
def test_help_imports_nothing_heavy(words: list[str], shows: str) -> None:
    script = (
        "import sys, vrex.sw.cli.main as c\n"
        "try: c.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'av', 'matplotlib', 'amaranth', 'tqdm', 'tokenizers', 'vrex.tb'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'imports {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert shows in result.stdout


def test_unset_options_keep_the_policys_defaults() -> None:
    args = _parse("run", "--video", "x", "--th-hd", "6")
    assert run.given_knobs(args) == {"th_hd": 6}


def test_paper_leaves_predict_and_seed_free() -> None:
    args = _parse("run", "--video", "x", "--paper", "--seed", "3", "--predict", "next")
    assert run.given_knobs(args) == {"seed": 3, "predict": "next"}


def test_help_names_the_policys_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    settings = ResvSettings()
    for knob in run.KNOBS:
        option = "--" + knob.replace("_", "-")
        default = re.search(rf" {option} [^-]*?\(default: ([^)]*)\)", shown.split("retrieval:")[1])
        assert default, option
        assert default[1] == str(getattr(settings, knob))


def test_the_page_on_the_command_line_names_commands_that_exist() -> None:
    # tests/test_docs.py does the same with what all other pages show.
    page = (Path(__file__).parents[3] / "docs" / "command-line.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith(".venv/bin/vrex ")]
    assert len(lines) > 20
    for line in lines:
        words = [word for word in shlex.split(line, comments=True)[1:] if not word.startswith(">")]
        cli.build_parser(words).parse_args(words)
