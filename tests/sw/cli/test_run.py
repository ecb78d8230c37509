"""`vrex run` from end to end on short videos."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from vrex.errors import UserError
from vrex.sw.cli import main as cli
from vrex.sw.driver.command_interface import CommandReport
from vrex.sw.retrieval.policies.resv_bits import ResvBitsSettings
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.session.source import open_source
from vrex.sw.videollm.procstream import make, write_mp4

SEED = 7
"""Its first step ends early, so that few frames hold a narration and a question."""
FRAMES = 8

SHORT, LONG = (["--segment-tokens", length] for length in ("2", "16"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(*words: str) -> int:
    return cli.main(["run", "--frames", str(FRAMES), *words])


def _figures(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """Runs with the figures on stdout, which must hold nothing else."""
    assert _run("--json", "-", *words) == 0
    figures: dict[str, Any] = json.loads(capsys.readouterr().out)
    return figures


def test_full_policy_narrates_and_answers_right(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--video", f"procstream:{SEED}", "--policy", "full", "--mode", "narrate")
    figures = _figures(capsys, *options)
    video = make(SEED, FRAMES)
    assert figures["frames"] == FRAMES
    assert figures["fps"] > 0
    assert figures["questions"] == figures["correct"] == len(video.questions) > 0
    assert figures["ratio"] == {"frame": 1.0, "text": 1.0, "per_layer_head": [[1.0, 1.0]] * 8}
    assert figures["rtl"]["calls"] == figures["rtl"]["compared"] == figures["rtl"]["mismatches"] == 0
    told = [(turn["time"], turn["question"], turn["answer"]) for turn in figures["conversation"]]
    right: list[tuple[float, str | None, str]] = [(time, None, text) for time, text in video.narration]
    right += [(question.time, question.text, question.answer) for question in video.questions]
    assert told == sorted(right)


def test_own_questions_replace_the_videos(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--ask", "3.25: now", "--ask", "1: first")
    figures = _figures(capsys, "--video", f"procstream:{SEED}", "--policy", "full", *asked)
    assert figures["settings"]["ask"] == [[1.0, "first"], [3.25, "now"]]
    assert (figures["questions"], figures["correct"]) == (2, None)


def test_a_file_brings_its_questions_along_and_a_wrong_answer_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mp4(make(SEED, FRAMES, fps=4), "video.mp4")
    sidecar = json.loads(Path("video.json").read_text())
    sidecar["questions"][0]["answer"] = "nothing"
    Path("video.json").write_text(json.dumps(sidecar))
    assert _run("--video", "video.mp4", "--policy", "full", "--json", "run.json") == 0
    printed = capsys.readouterr().out
    question = make(SEED, FRAMES, fps=4).questions[0]
    assert f"{question.text}? {question.answer}  (wrong: nothing)" in printed
    figures = json.loads(Path("run.json").read_text())
    assert figures["correct"] == figures["questions"] - 1
    assert figures["settings"]["video_fps"] == 4
    assert {path.name for path in folder.iterdir()} == {"video.mp4", "video.json", "run.json", "run.png"}
    assert Image.open("run.png").format == "PNG"


def test_only_questions_of_the_frames_shown_are_asked() -> None:
    write_mp4(make(SEED, 96), "video.mp4")
    source = open_source("video.mp4", 64, 48, None, [])
    assert source.frame_count == 48
    assert source.questions
    assert all(time < 24 for time, _ in source.questions)
    assert len(source.questions) < len(open_source("video.mp4", 64, None, None, []).questions)


def test_procstream_comes_in_the_size_it_was_made_for() -> None:
    with pytest.raises(UserError, match="64 pixels wide, but the model takes 384"):
        open_source("procstream:1", 384, 8, None, [])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--video", "missing.mp4"], "missing.mp4"),
        (["--video", "text.mp4"], "text.mp4"),
        (["--video", "."], "."),
        (["--video", "procstream:1", "--model", "missing"], "missing"),
        (["--video", "procstream:1", "--ask", "1: colour"], "colour"),
        (["--video", "procstream:1", "--ask", "99: now"], "past the end of the video"),
    ],
)
def test_bad_input(folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    Path("text.mp4").write_text("no video\n" * 100)
    assert _run("--json", "out.json", "--policy", "full", *words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("vrex: error: ")
    assert captured.err.count("\n") == 1
    assert says in captured.err
    assert [path.name for path in folder.iterdir()] == ["text.mp4"]


def test_a_damaged_file_is_used_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    write_mp4(make(SEED, 24), "video.mp4")
    Path("video.json").unlink()
    data = bytearray(Path("video.mp4").read_bytes())
    for at in range(len(data) // 3, len(data) // 3 + 300):
        data[at] ^= 0xFF
    Path("video.mp4").write_bytes(data)
    words = ["--video", "video.mp4", "--policy", "full", "--ask", "11: now", "--ask", "1: now"]
    assert cli.main(["run", "--json", "out.json", *words]) == 0
    figures = json.loads(Path("out.json").read_text())
    assert (figures["frames"], figures["questions"], figures["unanswered"]) == (24, 2, [])
    assert len(figures["damaged"]) >= 1
    assert 0 < figures["damaged"][0] < 11
    error = capsys.readouterr().err
    assert f"vrex: warning: video.mp4 is cut off or damaged at {figures['damaged'][0]:.2f}" in error


def test_a_question_past_an_end_that_was_not_known_costs_nothing_else(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mp4(make(SEED, 12), "video.mp4")
    with av.open("video.mp4") as source, av.open("video.h264", "w") as target:
        copied = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copied
                target.mux(packet)
    for path in (Path("video.mp4"), Path("video.json")):
        path.unlink()
    words = ["--video", "video.h264", "--policy", "full", "--ask", "1: now", "--ask", "99: now"]
    assert cli.main(["run", "--json", "out.json", *words]) == 2
    error = capsys.readouterr().err
    assert 'vrex: error: question "now": time 99 s is past the end of the video' in error
    figures = json.loads(Path("out.json").read_text())
    assert figures["frames"] > 2
    assert [turn["time"] for turn in figures["conversation"]] == [1.0]
    assert (figures["unanswered"], figures["damaged"]) == ([[99.0, "now"]], [])
    assert Image.open("out.png").format == "PNG"


def test_mismatches_end_with_code_1_and_keep_the_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = CommandReport.to_dict
    monkeypatch.setattr(CommandReport, "to_dict", lambda self: report(self) | {"mismatches": 3})
    assert _run("--video", f"procstream:{SEED}", "--json", "run.json") == 1
    assert "check failed: the RTL gave 3 results that the golden model does not" in capsys.readouterr().err
    assert json.loads(Path("run.json").read_text())["rtl"]["mismatches"] == 3


def test_resv_retrieves_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--policy", "resv", "--window", "2", "--th-hd", "6")
    figures = _figures(capsys, "--video", f"procstream:{SEED}", *words)
    assert figures["settings"]["resv"] | {"window": 2, "th_hd": 6} == figures["settings"]["resv"]
    assert 0 < figures["ratio"]["frame"] < 1
    assert figures["correct"] is not None
    # A SELECT and a CLUSTER for each layer and chunk once tokens leave the window.
    assert figures["rtl"]["calls"] > 8 * (FRAMES - 3)


def test_the_papers_setting_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    figures = _figures(capsys, "--video", f"procstream:{SEED}", "--paper", "--seed", "5")
    assert figures["settings"]["resv"] == asdict(ResvSettings.paper(seed=5))


def test_the_default_is_codes_and_votes_where_what_runs_it_knows_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    video = ("--video", f"procstream:{SEED}", "--set", "window=2")
    assert _run(*video, "--set", "k=20", "--json", "run.json") == 0
    assert "policy              resv-bits\n" in capsys.readouterr().out
    settings = json.loads(Path("run.json").read_text())["settings"]
    assert (settings["policy"], settings["fallback_for"]) == ("resv-bits", None)
    assert settings["knobs"] == asdict(ResvBitsSettings(k=20, window=2))
    assert _run(*video, "--offload", "dre", "--json", "run.json") == 0
    assert "policy              resv, the default with --offload dre\n" in capsys.readouterr().out
    settings = json.loads(Path("run.json").read_text())["settings"]
    assert (settings["policy"], settings["fallback_for"]) == ("resv", "--offload dre")
    assert settings["knobs"] == settings["resv"] == asdict(ResvSettings(window=2))


EQUAL = ("ratio", "clusters", "tokens_per_cluster", "rows", "degenerate_rows", "conversation")


@pytest.mark.parametrize(
    "words",
    [
        ["--scope", "head", "--predict", "next", "--window", "1"],
        ["--paper"],
        ["--set", "mean_bits=8", "--window", "1"],
    ],
)
def test_the_kv_cache_in_the_dres_memory_changes_no_answer(
    capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    options = ("--video", f"procstream:{SEED}", "--policy", "resv", *words)
    dre, kvpu = (_figures(capsys, *options, "--offload", offload) for offload in ("dre", "kvpu"))
    assert (dre["offload"], kvpu["offload"]) == ("dre", "kvpu")
    assert {key: dre[key] for key in EQUAL} == {key: kvpu[key] for key in EQUAL}
    assert dre["fetched"]["bytes"] == dre["dre"]["delivered_bytes"] > 0
    assert 0 < dre["dre"]["fill"] <= 1
    assert dre["rtl"]["units"] == {"append": 0, "retrieve": 0, "fetch": 0}
    assert "dre" not in kvpu


def test_longer_segments_are_emptier_and_change_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--video", f"procstream:{SEED}", "--window", "2", "--offload", "dre")
    short, plain, long = (_figures(capsys, *options, *words) for words in (SHORT, [], LONG))
    for figures in (short, long):
        assert {key: figures[key] for key in EQUAL} == {key: plain[key] for key in EQUAL}
    assert short["dre"]["fill"] > plain["dre"]["fill"] > long["dre"]["fill"]
    assert short["dre"]["segments"] > plain["dre"]["segments"] >= long["dre"]["segments"]
    assert long["settings"]["segment_tokens"] == 16


def test_the_dres_rtl_equals_the_golden_model(capsys: pytest.CaptureFixture[str]) -> None:
    video = ("--video", f"procstream:{SEED}", "--window", "2", "--set", "mean_bits=4")
    options = (*video, "--preset", "tiny", "--offload", "dre")
    golden = _figures(capsys, *options, "--ring-segments", "32")
    rtl = _figures(capsys, *options, "--ring-segments", "32", "--backend", "rtl", "--check")
    assert rtl["rtl"]["mismatches"] == 0
    assert rtl["rtl"]["compared"] > 5 * rtl["rtl"]["calls"] > 0
    assert {key: rtl[key] for key in EQUAL} == {key: golden[key] for key in EQUAL}
    assert rtl["dre"]["delivered_bytes"] == golden["dre"]["delivered_bytes"]
    counters = rtl["dre"]["counters"]
    assert counters["kv_beats"] * 8 == rtl["dre"]["delivered_bytes"]
    assert 0 < counters["kv_host_beats"] < counters["kv_beats"]
    assert counters["degenerate_rows"] == golden["degenerate_rows"]


@pytest.mark.parametrize("preset", ["tiny", "edge"])
def test_hash_bits_and_scores_of_the_lxe_change_no_answer(
    capsys: pytest.CaptureFixture[str], preset: str
) -> None:
    options = ("--video", f"procstream:{SEED}", "--window", "2")
    core = _figures(capsys, *options, "--offload", "core", "--lxe-preset", preset)
    dre = _figures(capsys, *options, "--offload", "dre")
    assert (core["offload"], core["lxe"]["preset"]) == ("core", preset)
    assert {key: core[key] for key in EQUAL} == {key: dre[key] for key in EQUAL}
    assert core["lxe"]["programs"] > 0
    assert core["lxe"]["multiplying"] > 0
    assert "layer_ulps" not in core["lxe"]
    assert "lxe" not in dre


def test_layers_on_the_lxe_are_near_software(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--video", f"procstream:{SEED}", "--window", "2", "--offload", "layer", "--layers", "5,0")
    lxe = _figures(capsys, *words, "--frames", "6")["lxe"]
    assert list(lxe["layer_ulps"]) == ["0", "5"]
    assert 0 < max(lxe["layer_ulps"].values()) <= 2
    logits = lxe["logits"]
    assert logits["rows"] > 60
    assert logits["same_word"] >= 0.98 * logits["rows"]
    assert 0 < logits["largest_difference"] < 0.02


def test_the_whole_decoder_on_a_core(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--video", f"procstream:{SEED}", "--window", "2")
    chip, dre = (_figures(capsys, *words, "--offload", offload) for offload in ("chip", "dre"))
    assert (chip["offload"], chip["settings"]["preset"]) == ("chip", "small")
    assert [turn["answer"] for turn in chip["conversation"]] == [
        turn["answer"] for turn in dre["conversation"]
    ]
    assert chip["correct"] == chip["questions"] > 0
    for key in ("rows", "predict"):
        assert chip[key] == dre[key]
    assert chip["dre"]["tokens"] == dre["dre"]["tokens"]
    assert chip["clusters"] == pytest.approx(dre["clusters"], rel=0.05)
    assert chip["ratio"]["frame"] == pytest.approx(dre["ratio"]["frame"], abs=0.05)
    assert chip["core"]["jobs"] == chip["rtl"]["calls"] > FRAMES
    assert chip["core"]["nan_jobs"] == 0
    # A job, its end, and three registers: nothing that grows with the model.
    moved = (64 + 32 + 3 * 4) * chip["core"]["jobs"]
    assert chip["host"]["register_bytes"] + chip["host"]["ring_bytes"] == moved
    assert chip["host"]["bytes_per_frame"] == moved / FRAMES


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--paper"], "--offload chip clusters tokens after a chunk's selection"),
        (["--predict", "next"], "--offload chip selects with a layer's own queries, not with predict next"),
        (
            ["--set", "mean_bits=4", "--param", "bus_bits=512", "--param", "dpe.inputs=32"],
            "--offload chip reads a head's mean in whole beats of the bus, but 64 values of 4 bits are 32 ",
        ),
        (["--set", "kv_bits=4"], "--offload chip keeps keys and values in BF16, but kv_bits is 4"),
        (["--preset", "ulx3s", "--param", "bus_bits=512"], "makes no core for this model: 2 x dpe.inputs"),
        (["--table-clusters", "5", "--window", "1", "--th-hd", "0"], "an HC table has no room for another"),
        (["--policy", "topk"], "--offload chip has no meaning with --policy topk"),
    ],
)
def test_what_a_core_does_not_do(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    options = ("--video", f"procstream:{SEED}", "--offload", "chip", "--json", "out.json")
    assert _run(*options, *words) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--offload", "dre"], "--offload dre keeps keys and values in BF16, but kv_bits is 4"),
        (["--cache", "x.kv"], "--cache packs by --cache-bits, not by kv_bits 4; give --cache-bits 4"),
    ],
)
def test_stores_that_pack_by_themselves_or_not_at_all(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert _run("--video", f"procstream:{SEED}", "--json", "out.json", "--set", "kv_bits=4", *words) == 2
    assert says in capsys.readouterr().err
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--layers", "3"], "--layers names what --offload layer runs; add it, or leave --layers out"),
        (["--offload", "core", "--layers", "3"], "--layers names what --offload layer runs"),
        (["--offload", "layer", "--layers", "0,9"], "there is no layer 9: the model has layers 0 to 7"),
        (["--offload", "layer", "--layers", "0,x"], "argument --layers: '0,x' is no list of layers"),
        (["--offload", "core", "--lxe-preset", "huge"], "--lxe-preset: unknown preset 'huge': choose one of"),
        (["--lxe-preset", "tiny"], "--lxe-preset needs an LXE; add --offload core or layer"),
        (["--offload", "layer", "--policy", "full"], "--offload layer has no meaning with --policy full"),
        (
            ["--offload", "core", "--cache", "x.kv"],
            "--cache needs policy resv with --offload kvpu, not --offload",
        ),
    ],
)
def test_mistakes_about_the_lxe(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert _run("--video", f"procstream:{SEED}", "--json", "out.json", *words) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert list(folder.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["layer", "head"])
def test_a_long_video_on_the_dres_rtl(capsys: pytest.CaptureFixture[str], scope: str) -> None:
    """Every layer of 500 frames through the Verilator library: commands, memory, K and V bit for bit."""
    words = ("--video", "procstream:1", "--scope", scope, "--offload", "dre", "--frames", "500")
    rtl = _figures(capsys, *words, "--backend", "rtl", "--check")
    golden = _figures(capsys, *words)
    assert (rtl["frames"], len(rtl["clusters_per_layer"])) == (500, 8)
    assert rtl["rtl"]["mismatches"] == 0
    assert rtl["rtl"]["compared"] > 5 * rtl["rtl"]["calls"] > 5 * 500
    assert {key: rtl[key] for key in EQUAL} == {key: golden[key] for key in EQUAL}
    print(scope, rtl["rtl"], rtl["dre"]["delivered_bytes"], f"{rtl['fps']:.2f} frames/s")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--table-clusters", "5"], "the HC table of layer 0 has room for 5 clusters and is full; raise"),
        (["--table-segments", "5"], "the KV store of layer 0 has room for 5 segments and is full; raise"),
        (["--table-clusters", "0"], "a table has room for 1 to 65535 clusters, not 0"),
        (
            ["--segment-tokens", "12"],
            "--segment-tokens: kvmu.segment_tokens must be a power of two from 1 to 64, not 12",
        ),
        (["--ring-segments", "12"], "a ring is 0 or a power of two from 64 segments on, not 12"),
        (["--predict", "reuse"], "predict reuse takes another layer's tokens"),
        (["--policy", "full"], "--offload dre has no meaning with --policy full, which retrieves nothing"),
        (["--policy", "topk"], "--offload dre has no meaning with --policy topk, which does not run"),
        (["--check"], "--check compares the RTL with the golden model; add --backend rtl"),
    ],
)
def test_what_a_dre_does_not_do(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    # Knobs that another policy does not have would be complained about first.
    knobs = [] if words[0] == "--policy" else ["--window", "1", "--th-hd", "0"]
    options = ("--video", f"procstream:{SEED}", "--offload", "dre", "--json", "out.json")
    assert _run(*options, *knobs, *words) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert list(folder.iterdir()) == []


def test_room_without_a_dre(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("--video", f"procstream:{SEED}", "--table-segments", "9") == 2
    assert "--table-segments sizes the DRE's memory; add --offload dre" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_rtl_equals_the_golden_model(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--video", f"procstream:{SEED}", "--policy", "resv", "--window", "2", "--preset", "tiny")
    golden = _figures(capsys, *options)
    rtl = _figures(capsys, *options, "--backend", "rtl", "--check")
    assert rtl["rtl"]["mismatches"] == 0
    assert rtl["rtl"]["compared"] > rtl["rtl"]["calls"] == golden["rtl"]["calls"]
    assert rtl["rtl"]["cycles"] > sum(rtl["rtl"]["units"].values()) * 0.9 > 0
    for key in ("ratio", "clusters", "conversation"):
        assert rtl[key] == golden[key]


VOTES = ("--preset", "tiny")


def test_votes_of_the_rtl_equal_the_hosts(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--video", f"procstream:{SEED}", *VOTES, "--set", "window=2", "--set", "k=20")
    host = _figures(capsys, *options)
    rtl = _figures(capsys, *options, "--backend", "rtl", "--check")
    assert (rtl["rtl"]["mismatches"], host["rtl"]["calls"]) == (0, 0)
    assert rtl["rtl"]["compared"] == rtl["rtl"]["calls"] > FRAMES
    assert rtl["rtl"]["units"]["votes"] > 100 * rtl["rtl"]["calls"]
    for key in ("ratio", "fetched", "conversation"):
        assert rtl[key] == host[key]


def test_recalls_of_the_rtl_equal_the_hosts_votes(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--video", f"procstream:{SEED}", *VOTES, "--set", "window=2", "--set", "k=20")
    host = _figures(capsys, *options)
    words = ("--policy", "resv-bits", "--offload", "dre", "--backend", "rtl", "--check")
    rtl = _figures(capsys, *options, *words)
    assert rtl["rtl"]["mismatches"] == 0
    assert rtl["rtl"]["compared"] > rtl["rtl"]["calls"] > FRAMES
    assert all(rtl["rtl"]["units"][unit] > 0 for unit in ("store", "recall"))
    for figure in ("tokens", "bytes"):
        assert rtl["fetched"][figure] == host["fetched"][figure] > 0
    # Packed in memory, BF16 on the stream: K and V of 64 dimensions.
    assert rtl["stores"]["delivered_bytes"] == 256 * rtl["fetched"]["tokens"]
    for key in ("ratio", "conversation"):
        assert rtl[key] == host[key]


@pytest.mark.slow
@pytest.mark.parametrize("offload", ["kvpu", "dre"])
@pytest.mark.parametrize("bits", ["32", "64", "128"])
def test_votes_over_a_long_video(capsys: pytest.CaptureFixture[str], bits: str, offload: str) -> None:
    words = ("--video", "procstream:1", "--frames", "96", *VOTES, "--set", "k=128", "--set", f"bits={bits}")
    where = ("--policy", "resv-bits", "--offload", offload, "--backend", "rtl", "--check")
    rtl = _figures(capsys, *words, *where)
    assert (rtl["rtl"]["mismatches"], rtl["correct"]) == (0, rtl["questions"])
    assert rtl["rtl"]["compared"] > 1000
    print(bits, rtl["rtl"], f"{rtl['fps']:.2f} frames/s")


def test_a_video_with_more_tokens_than_the_voter_holds(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    knobs = ("--set", "window=1", "--set", "k=5")
    words = ("--param", "codes.tokens=32", "--param", "codes.residents=32")
    assert _run("--video", f"procstream:{SEED}", *VOTES, *knobs, *words, "--backend", "rtl") == 2
    error = capsys.readouterr().err
    assert "voter chooses from 32 beside 32 residents; take a larger codes.tokens" in error
    assert "Traceback" not in error


SMALL_CACHE = ("--cache", "kv", "--device-bytes", "900KB", "--host-bytes", "0.5MiB")


def test_a_cache_that_leaves_memory_changes_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    frames = ("--frames", "40", "--video", "procstream:3", "--policy", "resv", "--json", "-")
    assert cli.main(["run", *frames]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert cli.main(["run", *frames, *SMALL_CACHE]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["conversation"] == plain["conversation"]
    assert figures["correct"] == figures["questions"] > 0
    assert figures["ratio"] == plain["ratio"]
    assert figures["fetched"] == plain["fetched"]
    assert figures["cache"]["tiers"]["file"]["bytes"] > 0
    assert figures["settings"]["device_bytes"] == 900_000
    assert figures["settings"]["host_bytes"] == 1 << 19


def test_a_cache_goes_on_where_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    write_mp4(make(3, 40), Path("film.mp4"))
    asked = ("--ask", "2: first", "--ask", "6: now", "--ask", "9.5: now", "--ask", "19: task")
    video = ("--video", "film.mp4", "--policy", "resv", "--json", "-", "--mode", "narrate")
    assert cli.main(["run", *video, *asked]) == 0
    whole = json.loads(capsys.readouterr().out)["conversation"]
    assert cli.main(["run", *video, *asked[:4], "--frames", "13", *SMALL_CACHE]) == 0
    first = json.loads(capsys.readouterr().out)["conversation"]
    assert cli.main(["run", *video, *asked, *SMALL_CACHE]) == 0
    captured = capsys.readouterr()
    rest = json.loads(captured.out)
    assert rest["frames"] == 40 - 13
    assert first + rest["conversation"] == whole
    assert "cache kv holds 13 frames, " in captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--cache", "kv", "--policy", "topk"), "resv with --offload kvpu, not --policy topk; leave one out"),
        (("--cache", "kv", "--offload", "dre"), "resv with --offload kvpu, not --offload dre; leave one out"),
        (("--host-bytes", "1MB"), "--host-bytes is about the cache file; add --cache, or leave it out"),
        (("--cache", "kv", "--host-bytes", "1MB", "--device-bytes", "1KB"), "of device memory are too few"),
        (("--cache", "no/kv"), "cannot write no/kv: the folder"),
    ],
)
def test_caches_that_cannot_be(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("--video", f"procstream:{SEED}", *words) == 2
    assert message in capsys.readouterr().err
    assert list(Path().glob("*.png")) == []


def test_sizes_that_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("--video", f"procstream:{SEED}", "--cache", "kv", "--host-bytes", "many") == 2
    assert "'many' is no number of bytes, such as 16MB, 1.5GiB or 4096" in capsys.readouterr().err
