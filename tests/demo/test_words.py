"""The sentences and the table."""

from __future__ import annotations

from resilience._demo.run import Plan, Result
from resilience._demo.script import Arm
from resilience._demo.words import caution, rows, sentences, table
from tests.demo import made


def test_five_sentences() -> None:
    assert sentences(made.result()) == [
        "Of 40 calls each, standard served 24, tenacity served 22 and bare served 20.",
        "While the services were sick, they counted these requests: 12 from standard, 56 from tenacity and 20 from "
        "bare.",
        "The caller of a call that failed waited on average 0.50 s with standard, 0.50 s with tenacity and "
        "0.50 s with bare.",
        "Healthy again, the services served nine of ten calls at once with standard, at once with tenacity and at once "
        "with bare.",
        "Orders carried out twice: 0 by standard, 6 by tenacity and 0 by bare.",
    ]


def test_of_a_service_of_the_user_only_what_is_known() -> None:
    found = sentences(made.result(own=True))

    assert len(found) == 3
    assert found[1] == "Requests that the services got: 40 from standard, 40 from tenacity and 40 from bare."


def test_what_did_not_fail_and_what_did_not_recover() -> None:
    plan = made.result().plan
    alone = Result(Plan(day=plan.day, arms=[Arm.BARE]))
    alone.records.calls += [call for call in made.result().records.calls if call.arm is Arm.BARE and call.served]
    assert "waited on average 0.00 s with bare (none failed)" in sentences(alone)[2]

    alone.records.calls += [call for call in made.result().records.calls if call.arm is Arm.BARE and not call.served]
    late = Result(Plan(day=[plan.day[1], plan.day[0]], arms=[Arm.BARE]), alone.records)
    assert sentences(late)[-1] == "Healthy again, the services served nine of ten calls never with bare."


def test_the_table_adds_up() -> None:
    found = rows(made.result())

    assert len(found) == 2 * 3 * 3
    assert found[1] == ("http", "sick", "tenacity", "10", "1", "9", "28", "500", "500")
    assert found[7] == ("http", "all", "tenacity", "20", "11", "9", "38", "10", "500")
    lines = table(made.result())
    assert lines[1].split() == ["http", "sick", "bare", "10", "0", "10", "10", "500", "500"]
    assert lines[2].split()[0] == "tenacity"
    assert max(map(len, lines)) <= 80


def test_of_a_single_phase_there_is_one_row_and_the_attempts_sent() -> None:
    found = rows(made.result(own=True))

    assert len(found) == 2 * 3
    assert found[0] == ("http", "all", "bare", "20", "10", "10", "20", "10", "500")


def test_a_phase_without_calls_has_no_times() -> None:
    assert rows(Result(made.result().plan))[0] == ("http", "sick", "bare", "0", "0", "0", "0", "-", "-")


def test_a_busy_machine_is_mentioned() -> None:
    result = made.result()
    assert caution(result) == ""
    result.records.lag = 1.26
    assert caution(result).startswith("This machine was busy: calls were made up to 1.3 s late")
