"""COIN's file and the questions made of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from vrex.errors import UserError
from vrex.sw.evaluation.coin.annotations import TASKS, Annotations, make_cases, read_annotations, words_of


def entry(task: str, labels: list[str], subset: str = "testing", **more: Any) -> dict[str, Any]:
    """A video whose step i lasts from 2 i to 2 i + 1.5 s."""
    steps = [{"id": str(i), "segment": [2.0 * i, 2 * i + 1.5], "label": x} for i, x in enumerate(labels)]
    end = 2 * len(labels)
    return {
        "class": task,
        "subset": subset,
        "start": 0.0,
        "end": end,
        "duration": end,
        "annotation": steps,
    } | more


SIX = [f"do thing {letter}" for letter in "abcdef"]
DATABASE = {
    "one": entry("MakeTea", ["pour Water", "process (crop, fold) paper", "pour Water"], video_url="x"),
    "six": entry("ReplaceSIMCard", SIX),
    "seen": entry("PutOnHair", ["brush"], "training"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path, DATABASE)


def write(folder: Path, database: Any) -> Path:
    path = folder / "COIN.json"
    path.write_text(json.dumps({"database": database}))
    return path


@pytest.fixture
def annotations(path: Path) -> Annotations:
    return read_annotations(path, "test")


def test_categories_are_of_both_splits(annotations: Annotations) -> None:
    assert [video.name for video in annotations.videos] == ["one", "six"]
    assert annotations.steps == sorted(
        ["Brush.", "Crop and fold paper.", "Pour water.", *(f"Do thing {letter}." for letter in "abcdef")]
    )
    assert annotations.categories("task") == ["Make tea.", "Put on hair.", "Replace sim card."]
    assert annotations.categories("goal") == annotations.steps


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("PutOnHair", "put on hair"),
        ("ReplaceSIMCard", "replace SIM card"),
        ("AssembleTVStand", "assemble TV stand"),
        ("InstallSSD", "install SSD"),
        ("MakeRJ45Cable", "make RJ45 cable"),
        ("PlayNBAGame", "play NBA game"),
        ("BurnCD", "burn CD"),
    ],
)
def test_names_become_words(name: str, words: str) -> None:
    assert words_of(name) == words


def test_counts(annotations: Annotations) -> None:
    assert [len(make_cases(annotations.videos, task)) for task in TASKS] == [9, 7, 2, 7, 7]


def test_steps_and_next(annotations: Annotations) -> None:
    step, *_ = make_cases(annotations.videos, "step")
    assert (step.video, step.index, step.start, step.end) == ("one", 0, 0.0, 1.5)
    assert step.question.startswith("What is the action in the video? Format your answer concisely.")
    assert step.expected == ("Pour water.",)
    following = make_cases(annotations.videos, "next")[1]
    assert (following.index, following.start, following.expected) == (1, 2.0, ("Pour water.",))
    whole = make_cases(annotations.videos, "task")[1]
    assert (whole.start, whole.end, whole.expected) == (0.0, 12, ("Replace sim card.",))


def test_procedures_ask_for_up_to_five_steps(annotations: Annotations) -> None:
    plans = [case for case in make_cases(annotations.videos, "procedure") if case.video == "six"]
    assert [len(case.expected) for case in plans] == [5, 4, 3, 2, 1]
    assert plans[0].expected == tuple(f"Do thing {letter}." for letter in "bcdef")
    assert plans[0].question.startswith("What is the next 5 actions for the video? ")
    assert "on a new line with a number prefix" in plans[3].question
    assert plans[4].question == make_cases(annotations.videos, "next")[0].question
    goals = [case for case in make_cases(annotations.videos, "goal") if case.video == "six"]
    assert goals[0].question == plans[0].question.replace("What", "To replace SIM card, what", 1)
    assert goals[4].question.startswith("To replace SIM card, what is the next action for the video?")
    assert [case.expected for case in goals] == [case.expected for case in plans]


@pytest.mark.parametrize(
    ("database", "words"),
    [
        ([], "no object 'database'"),
        ({"a": 3}, "video a has no proper 'annotation'"),
        ({"a": entry("X", ["y"], "testing", annotation=[{"segment": [0, 1]}])}, "no proper 'label'"),
        ({"a": entry("X", ["y"], "testing", annotation=[{"segment": [3, 1], "label": "y"}])}, r"\[3, 1\]"),
        ({"a": entry("X", ["y"], "testing", annotation=[{"segment": [1], "label": "y"}])}, "no span"),
        ({"a": entry("X", ["y"], "testing", start="0")}, "no proper 'start'"),
        ({"a": entry("X", ["y"], "testing", start=9)}, "lasts from 9 to 2"),
        ({"a": entry("X", ["y"], "training")}, "no video of split 'test'"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, database: Any, words: str) -> None:
    path = write(tmp_path, database)
    with pytest.raises(UserError, match=words) as caught:
        read_annotations(path, "test")
    assert "COIN.json" in str(caught.value)


def test_files_that_are_no_annotations(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_annotations(tmp_path / "missing.json", "test")
    for text in ("{", "[" * 100_000):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(UserError, match="not valid JSON"):
            read_annotations(tmp_path / "x.json", "test")
