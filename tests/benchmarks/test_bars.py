"""The bars that the benchmarks have to meet, and how they are judged."""

import pytest

from benchmarks.bars import BARS, Bar, Missing, Status, judge, settled

AT_MOST = Bar("speed", "part/ours", ("part/one", "part/two"), 0.4, 0.6)
AT_LEAST = Bar("crowd", "part/alone", ("part/crowd",), 0.99, 0.9, at_most=False)
PLAIN = Bar("memory", "part/size", (), None, 3072, unit="bytes")


def test_a_bar_is_met_up_to_its_very_number() -> None:
    found = {"part/ours": [6.0, 6.0, 6.0], "part/one": [10.0, 10.0, 10.0], "part/two": [11.0, 11.0, 11.0]}

    verdict = judge(AT_MOST, found, {}, {})

    assert (verdict.status, verdict.value, verdict.good) == (Status.MET, 0.6, True)


def test_what_is_above_the_bar_misses_it() -> None:
    found = {"part/ours": [7.0], "part/one": [10.0], "part/two": [10.0]}

    assert judge(AT_MOST, found, {}, {}).status is Status.MISSED


def test_of_several_the_fastest_counts() -> None:
    found = {"part/ours": [5.0], "part/one": [10.0], "part/two": [4.0]}

    verdict = judge(AT_MOST, found, {}, {})

    assert (verdict.status, verdict.to, verdict.value) == (Status.MISSED, "part/two", 1.25)


@pytest.mark.parametrize(("crowd", "status"), [(10.0, Status.MET), (11.0, Status.MET), (12.0, Status.MISSED)])
def test_the_other_direction(crowd: float, status: Status) -> None:
    assert judge(AT_LEAST, {"part/alone": [10.0], "part/crowd": [crowd]}, {}, {}).status is status


@pytest.mark.parametrize(("size", "status"), [(3072.0, Status.MET), (3073.0, Status.MISSED)])
def test_a_number_that_is_compared_with_nothing_counts_itself(size: float, status: Status) -> None:
    verdict = judge(PLAIN, {"part/size": [size]}, {}, {})

    assert (verdict.status, verdict.value) == (status, size)


def test_a_missing_peer_is_not_passed_over() -> None:
    found = {"part/ours": [1.0], "part/one": [10.0]}
    missing = {"part/two": Missing("peer-two", "ImportError: no module")}

    verdict = judge(AT_MOST, found, missing, {})

    assert (verdict.status, verdict.good) == (Status.NOT_MEASURED, False)
    assert verdict.why == "part/two: ImportError: no module"


def test_what_nobody_knows_of_is_not_passed_over() -> None:
    assert judge(PLAIN, {}, {}, {"": "no reason"}).status is Status.NOT_MEASURED


def test_our_own_part_is_never_excused_by_an_absent_peer() -> None:
    missing = {"part/ours": Missing("", "ValueError: broken")}
    found = {"part/one": [1.0], "part/two": [1.0]}

    assert judge(AT_MOST, found, missing, {"peer-two": "gone"}).status is Status.NOT_MEASURED


def test_an_accepted_absence_leaves_the_others_to_compare_with() -> None:
    found = {"part/ours": [5.0], "part/one": [10.0]}
    missing = {"part/two": Missing("peer-two", "ImportError: no module")}

    verdict = judge(AT_MOST, found, missing, {"peer-two": "gone from the index"})

    assert (verdict.status, verdict.value, verdict.to) == (Status.MET, 0.5, "part/one")


def test_a_bar_without_anybody_left_to_compare_with_is_accepted_and_says_why() -> None:
    missing = {"part/crowd": Missing("peer", "ImportError: no module")}

    verdict = judge(AT_LEAST, {"part/alone": [1.0]}, missing, {"peer": "gone from the index"})

    assert (verdict.status, verdict.good, verdict.why) == (Status.ACCEPTED, True, "gone from the index")


def test_ratios_are_settled_when_they_are_certain() -> None:
    steady = {"part/ours": [5.0] * 9, "part/one": [10.0] * 9}
    shaky = {"part/ours": [5.0, 6.0, 7.0], "part/one": [10.0] * 3}

    assert settled([AT_MOST], steady)
    assert not settled([AT_MOST], shaky)


def test_what_was_not_measured_does_not_keep_the_rounds_going() -> None:
    assert settled([AT_MOST], {"part/ours": [5.0, 9.0]})
    assert settled([PLAIN], {"part/size": [1.0, 9.0]})


def test_the_bars_make_sense() -> None:
    assert len({bar.name for bar in BARS}) == len(BARS)
    for bar in BARS:
        assert {name.partition("/")[0] for name in bar.to} <= {bar.section}
        assert bar.aim is None or (bar.aim <= bar.bar if bar.at_most else bar.aim >= bar.bar)
