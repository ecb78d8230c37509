"""Points of settings out of the words of a command line."""

import pytest

from vrex.errors import UserError
from vrex.sw.evaluation.points import Point, make_points
from vrex.sw.retrieval.policies.registry import POLICIES
from vrex.sw.retrieval.policies.resv_settings import ResvSettings


def test_without_values_a_policy_has_one_point_at_its_defaults() -> None:
    assert make_points(["full", "resv"], []) == [Point.of("full", {}), Point.of("resv", {})]
    assert make_points(["resv"], [])[0].settings == ResvSettings()


def test_values_of_several_knobs_are_combined() -> None:
    points = make_points(["resv"], ["th_r=0.2,0.3", "resv.th_hd=5,7"])
    assert [(dict(p.knobs)["th_r"], dict(p.knobs)["th_hd"]) for p in points] == [
        (0.2, 5),
        (0.2, 7),
        (0.3, 5),
        (0.3, 7),
    ]


def test_linked_knobs_take_each_value_together() -> None:
    points = make_points(["rekv"], ["rekv.frame_ratio+text_ratio=0.1,0.2"])
    knobs = [dict(point.knobs) for point in points]
    assert [(each["frame_ratio"], each["text_ratio"]) for each in knobs] == [(0.1, 0.1), (0.2, 0.2)]


def test_a_knob_without_policy_goes_to_all_that_have_it() -> None:
    points = make_points(["full", "resv", "rekv"], ["window=3,10"])
    assert [(point.policy, dict(point.knobs).get("window")) for point in points] == [
        ("full", None),
        ("resv", 3),
        ("resv", 10),
        ("rekv", 3),
        ("rekv", 10),
    ]


def test_equal_values_make_one_point() -> None:
    assert len(make_points(["resv"], ["th_r=0.3,0.30"])) == 1


@pytest.mark.parametrize("policy", POLICIES)
def test_the_settings_come_back_from_a_point(policy: str) -> None:
    point = Point.of(policy, {})
    assert Point.of(policy, dict(point.knobs)) == point


@pytest.mark.parametrize(
    ("policies", "sets", "says"),
    [
        (["fulll"], [], "'fulll' is unknown"),
        ([], [], "names none"),
        (["full", "full"], [], "twice"),
        (["resv"], ["th_q=1"], "no policy of --policies has the knob 'th_q'"),
        (["resv"], ["resv.th_q=1"], "no knob 'th_q'"),
        (["full"], ["resv.th_r=0.1"], "'resv' is not among --policies"),
        (["resv"], ["th_r"], "not of the form"),
        (["resv"], ["th_r="], "not of the form"),
        (["resv"], ["th_r=0.1,,0.2"], "not of the form"),
        (["resv"], ["th_r=1.5"], "th_r must be"),
        (["resv"], ["th_hd=4.5"], "th_hd must be"),
        (["resv"], ["rule=rawer"], "rule 'rawer' is unknown"),
        (["resv"], ["th_r=0.1", "resv.th_r=0.2"], "set twice"),
    ],
)
def test_mistakes_are_named(policies: list[str], sets: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        make_points(policies, sets)
