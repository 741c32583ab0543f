"""RateLimit headers and what was used before them: the syntax against a parser of others, and each family."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import http_sf
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from resilience import Hint
from resilience._outcome.rate_limit_fields import (
    LONGEST,
    NAMES,
    Quota,
    hints_in,
    number_in,
    quotas_in,
    timestamp_in,
)

DATE = "Wed, 21 Oct 2026 07:28:00 GMT"
EPOCH = 1792567680
"""The same as a number of seconds."""
HUGE = "9" * 400


def quotas_by_oracle(field: str) -> list[Quota] | None:
    """The quotas in a RateLimit header as http_sf parses it; None if its Date is too late for a datetime."""
    try:
        members: Any = http_sf.parse(field.encode("latin-1"), tltype="list")
    except http_sf.StructuredFieldError as error:
        return None if "Date value out of range" in str(error) else []
    quotas: list[Quota] = []
    for item, parameters in members:
        remaining, resets_in, key = parameters.get("r"), parameters.get("t", 0), parameters.get("pk", b"")
        is_number = [type(number) is int and number >= 0 for number in (remaining, resets_in)]
        if isinstance(item, list) or not all(is_number) or not isinstance(key, bytes):
            return []
        quotas.append(Quota(remaining, resets_in if "t" in parameters else None))
    return quotas


@pytest.mark.parametrize(
    ("field", "quotas"),
    [
        ('"default";r=50;t=30', [(50, 30)]),
        ('"default";r=50;t=30, "daily";r=0;t=3600', [(50, 30), (0, 3600)]),
        ('"default";r=50;t=30,"daily";r=0;t=3600', [(50, 30), (0, 3600)]),
        ('"default";r=50;t=30 \t,\t "daily";r=0;t=3600', [(50, 30), (0, 3600)]),
        ('  "default";  r=50;  t=30  ', [(50, 30)]),
        ('"default";r=50\t', [(50, None)]),
        ('"default";r=999;pk=:dHJpYWwxMjEzMjM=:', [(999, None)]),
        ('"default";r=300000000;t=60;pk=:QXBwLTk5OQ==:', [(300000000, 60)]),
        ('"default";r=1;pk=::', [(1, None)]),
        ('"default";r=1;pk=:sdfjLJUOUH==:', [(1, None)]),
        ('"default";r=1;pk=:sdfjLJUOUH:', [(1, None)]),
        ('"default";r=1;acme-burst="x, y; r=0";*z.a_b=?0', [(1, None)]),
        ('"default";t=1;r=2;r=3;t=4', [(3, 4)]),
        ('"a \\"quoted\\" \\\\ name";r=1', [(1, None)]),
        ('"";r=1', [(1, None)]),
        ("default;r=1;t=2", [(1, 2)]),
        ("*/a:b;r=1", [(1, None)]),
        ('100;r=1, -1.125;r=2, :aGk=:;r=3, ?1;r=4, @1792567680;r=5, %"f%c3%bc";r=6', [(n, None) for n in range(1, 7)]),
        ('"default";r=-0;t=00', [(0, 0)]),
        ('"default";r=999999999999999;t=999999999999999', [(999999999999999, 999999999999999)]),
    ],
)
def test_a_valid_field(field: str, quotas: list[tuple[int, int | None]]) -> None:
    assert quotas_in(field) == quotas
    assert quotas_by_oracle(field) == quotas


@pytest.mark.parametrize(
    "field",
    [
        *("", " ", ",", ";", "=", '"', "(", ")", ":", "?", "@", "%", "\x00", "\xe9", "\u0661"),
        *('"default"', '"default";t=30', '"default";r', '"default";r=', '"default";r="50"', '"default";r=fifty'),
        *('"default";r=-1', '"default";r=+1', '"default";r=1.0', '"default";r=?1', '"default";r=:MQ:'),
        *('"default";r=1;t', '"default";r=1;t=-1', '"default";r=1;t=1.5', '"default";r=1;t="1"', '"default";r=1;t=?1'),
        *('"default";r=1;pk', '"default";r=1;pk="user"', '"default";r=1;pk=user', '"default";r=1;pk=1'),
        *('"default";r=1000000000000000', f'"default";r=1;t={HUGE}', '"default";r=1;x=1000000000000.5'),
        *('"default";r=1,', ',"default";r=1', '"default";r=1,,"daily";r=1', '"default";r=1 "daily";r=1'),
        *('"default";r=1;', '"default" ;r=1', '"default"; \tr=1', '"default";r =1', '"default";r= 1'),
        *('"default";R=1', '"default";1r=1', '"default";-r=1', '"default";r=1;X=1', "'default';r=1", "default=1;r=1"),
        *('"default;r=1', 'default";r=1', '"a\\n";r=1', '"a\\";r=1', '"caf\xe9";r=1', '"a\tb";r=1', '"a\x7f";r=1'),
        *(":aGk=;r=1", ":aGk*:;r=1", ":a:;r=1", ":=:;r=1", ":aGk===:;r=1", ":aG=k:;r=1", ":aGkaa:;r=1"),
        *("?2;r=1", "?;r=1", "?true;r=1", "@1.5;r=1", "@;r=1", "@a;r=1", "1.;r=1", "1.2345;r=1", "1.2.3;r=1"),
        *("-;r=1", "--1;r=1", "+1;r=1", "0x1;r=1", "1e3;r=1"),
        *('%"%C3%BC";r=1', '%"%c3";r=1', '%"%zz";r=1', '%"%c";r=1', '%"%c3%bc;r=1', "%a;r=1", '%"\xfc";r=1'),
        *('("a" "b");r=1;t=2', "();r=1", '("a";r=1 "b";r=2)', '"default";r=1, ("a");r=1', '"default";r=(1)'),
        *("limit=100, remaining=0, reset=30", "50", "100, 100;w=60", "r=50;t=30", '"default";r=1\n'),
    ],
)  # fmt: skip
def test_a_malformed_field_is_ignored_as_a_whole(field: str) -> None:
    assert quotas_in(field) == []
    assert quotas_in(f'"fine";r=0;t=30, {field}') == [] or not field.strip(" ")
    assert field == "\u0661" or quotas_by_oracle(field) == []


def test_what_follows_or_precedes_a_malformed_item_is_ignored_too() -> None:
    assert quotas_in('"default";r=0;t=30, "daily";r=-1') == []
    assert quotas_in('"daily", "default";r=0;t=30') == []
    assert quotas_in('\t"default";r=0;t=30') == quotas_by_oracle('\t"default";r=0;t=30') == []


bare_items: Any = st.one_of(
    st.integers(-999_999_999_999_999, 999_999_999_999_999),
    st.decimals(-1000, 1000, places=3),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=6),
    st.from_regex(r"[A-Za-z*][A-Za-z0-9:/!#$%&'*+.^_`|~-]{0,5}", fullmatch=True).map(http_sf.Token),
    st.binary(max_size=8),
    st.booleans(),
    st.integers(-10_000_000, 10_000_000_000).map(
        lambda seconds: datetime.fromtimestamp(0, UTC) + timedelta(0, seconds)
    ),
    st.text('a %"\\\u00fc\u20ac\U0001f600', max_size=4).map(http_sf.DisplayString),
)
counts = st.integers(0, 3) | st.integers(0, 999_999_999_999_999)
quotas: Any = st.tuples(
    bare_items,
    st.fixed_dictionaries({"r": counts}, optional={"t": counts, "pk": st.binary(max_size=8), "x": bare_items}),
)
others: Any = st.dictionaries(st.sampled_from(["r", "t", "pk", "*", "acme-burst"]), bare_items, max_size=3)
no_quotas: Any = st.tuples(bare_items | st.lists(st.tuples(bare_items, others), max_size=2), others)
fields = st.lists(quotas, min_size=1, max_size=3).map(http_sf.ser)
mixed_fields = st.lists(quotas | no_quotas, min_size=1, max_size=3).map(http_sf.ser)
pieces = st.one_of(
    st.sampled_from([*' \t,;="\\()?@%:-.*01aAr/\n\x7f\xe9', "r=", ";t=1", ', "x";r=1', "%c3%bc", "::", "=1"]),
    st.characters(max_codepoint=255),
)
thorough = settings(derandomize=True, database=None, deadline=None, max_examples=300)


def agree(field: str) -> None:
    expected = quotas_by_oracle(field)
    assume(expected is not None)
    event("valid" if expected else "malformed")
    assert quotas_in(field) == expected, field


@thorough
@given(fields | mixed_fields)
def test_generated_fields_are_read_as_by_another_parser(field: str) -> None:
    agree(field)


@thorough
@given(fields, st.data())
def test_mutated_fields_are_read_as_by_another_parser(field: str, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(field)))
        end = data.draw(st.integers(start, min(start + 3, len(field))))
        field = field[:start] + data.draw(st.just("") | pieces) + field[end:]
    agree(field)


@thorough
@given(st.lists(pieces, max_size=12).map("".join))
def test_garbage_is_read_as_by_another_parser(field: str) -> None:
    agree(field)
    agree(f'"default";r=1{field}')
    agree(f"x;r=1;y={field}")


def test_the_generated_decimals_are_exact() -> None:
    assert http_sf.ser(Decimal("1.125")) == "1.125"


def hint(headers: dict[str, str]) -> Hint | None:
    return next(hints_in({"date": DATE, **headers}), None)


FAMILIES = {
    "drafts up to 06": ("ratelimit-remaining", "ratelimit-reset"),
    "x": ("x-ratelimit-remaining", "x-ratelimit-reset"),
    "discord": ("x-ratelimit-remaining", "x-ratelimit-reset-after"),
    "openai requests": ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    "openai tokens": ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    "anthropic requests": ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    "anthropic tokens": ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    "anthropic input": ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
    "anthropic output": ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
}


def test_all_names_are_read() -> None:
    assert {"ratelimit", "date", "age", *(name for names in FAMILIES.values() for name in names)} == NAMES


@pytest.mark.parametrize("names", FAMILIES.values(), ids=FAMILIES)
class TestPairs:
    @pytest.mark.parametrize(
        ("reset", "seconds"),
        [
            ("30", 30.0), ("1.5", 1.5), (" 30 ", 30.0), ("1000000000", 1e9), (HUGE, LONGEST),
            ("30s", 30.0), ("6m0s", 360.0), ("1h30m", 5400.0), ("1.5s", 1.5), ("120ms", 0.12), ("1m26.4s", 86.4),
            ("500us", 0.0005), ("500µs", 0.0005), ("500ns", 5e-7), ("0s", 0.0), ("24h0m0s", 86400.0),
            (f"{HUGE}h", LONGEST), (f"1h{HUGE}s", LONGEST),
            (f"{EPOCH + 30}", 30.0), (f"{EPOCH + 30}.5", 30.5), (f"{EPOCH + 30}500", 30.5), (f"{EPOCH}", 0.0),
            (f"{EPOCH - 1}", None), (f"{EPOCH - 1}000", None),
            ("2026-10-21T07:28:30Z", 30.0), ("2026-10-21t07:28:30.5z", 30.5), ("2026-10-21T09:28:30+02:00", 30.0),
            ("2026-10-21T07:28:30.123456789Z", 30.123456), ("2026-10-21T07:28:00Z", 0.0),
            ("2026-10-21T07:27:59Z", None), ("2026-10-21T07:28:30", None), ("2026-10-21", None),
            ("2026-13-21T07:28:30Z", None), ("20261021T072830Z", None), ("2026-10-21 07:28:30Z", None),
            ("9999-12-31T23:59:59-12:00", 251609776319.0), ("0001-01-01T00:00:00Z", None),
            ("", None), ("-1", None), ("-30", None), ("+30", None), ("nan", None), ("inf", None), ("1e3", None),
            ("soon", None), ("30 s", None), ("-6m0s", None), ("6m0", None), ("m", None), ("1.s", None), ("1d", None),
            ("1_000", None), ("\u0663", None), ("Wed, 21 Oct 2026 07:28:30 GMT", None), ("30;w=60", None),
        ],
    )  # fmt: skip
    def test_the_reset(self, names: tuple[str, str], reset: str, seconds: float | None) -> None:
        found = hint({names[0]: "0", names[1]: reset})

        assert (found and found.remaining) == (None if seconds is None else 0)
        assert (found and found.resets_in) == (None if seconds is None else pytest.approx(seconds))

    @pytest.mark.parametrize(
        ("remaining", "count"),
        [
            ("0", 0.0), ("00", 0.0), ("7", 7.0), (" 7 ", 7.0), ("0.5", 0.5), (HUGE, LONGEST),
            ("", None), ("-1", None), ("-0", None), ("nan", None), ("none", None), ("7;w=60", None), ("1e3", None),
        ],
    )  # fmt: skip
    def test_what_remains(self, names: tuple[str, str], remaining: str, count: float | None) -> None:
        assert hint({names[0]: remaining, names[1]: "30"}) == (None if count is None else (count, 30))

    @pytest.mark.parametrize("date", [None, "", "yesterday", "Wed, 99 Oct 2026 07:28:00 GMT"])
    @pytest.mark.parametrize("reset", [f"{EPOCH + 30}", f"{EPOCH + 30}000", "2026-10-21T07:28:30Z"])
    def test_a_point_in_time_needs_the_date(self, names: tuple[str, str], date: str | None, reset: str) -> None:
        headers = {names[0]: "0", names[1]: reset}

        assert list(hints_in(headers if date is None else {"date": date, **headers})) == []

    @pytest.mark.parametrize("reset", ["0", "00", "0.0"])
    def test_zero_means_unknown_in_x_headers_only(self, names: tuple[str, str], reset: str) -> None:
        assert hint({names[0]: "0", names[1]: reset}) == (None if names[0].startswith("x-") else (0, 0))

    def test_one_half_is_no_hint(self, names: tuple[str, str]) -> None:
        assert hint({names[0]: "0"}) is None
        assert hint({names[1]: "30"}) is None

    @pytest.mark.parametrize(
        ("remaining", "reset", "expected"),
        [
            ("5, 0", "30, 60", (0, 60)), ("0, 5", "30, 60", (0, 30)), ("5,7", "30,60", (5, 30)),
            ("0, 0", "60, 30", (0, 60)), ("0, 0", "soon, 30", (0, 30)), ("-1, 7", "30, 60", (7, 60)),
            ("0", "1, 7", (0, 7)), ("0, 5", "30", None), ("0, 5, 7", "30, 60", None), ("0,", "30", None),
        ],
    )  # fmt: skip
    def test_repeated_headers(
        self, names: tuple[str, str], remaining: str, reset: str, expected: tuple[float, float] | None
    ) -> None:
        assert hint({names[0]: remaining, names[1]: reset}) == expected

    def test_a_response_of_a_cache_says_nothing(self, names: tuple[str, str]) -> None:
        headers = {"ratelimit": '"default";r=0;t=30', names[0]: "0", names[1]: "30"}

        assert [list(hints_in({**headers, "age": age})) for age in ("1", "3600", HUGE)] == [[], [], []]
        assert [len(list(hints_in({**headers, "age": age}))) for age in ("0", "", "-1", "old")] == [2, 2, 2, 2]


def azure(remaining: str, reset: str) -> dict[str, str]:
    return {"x-ratelimit-remaining-requests": remaining, "x-ratelimit-reset-requests": reset}


def anthropic(**quotas: tuple[int, int]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, (remaining, second) in quotas.items():
        prefix = f"anthropic-ratelimit-{name.replace('_', '-')}"
        headers |= {f"{prefix}-remaining": str(remaining), f"{prefix}-reset": f"2026-10-21T07:28:{second:02}Z"}
    return headers


OPENAI_TOKENS = {"x-ratelimit-remaining-tokens": "149984", "x-ratelimit-reset-tokens": "6m0s"}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"ratelimit": '"default";r=50;t=30, "daily";r=0;t=3600'}, (0, 3600)),
        ({"ratelimit": '"default";r=0;t=30, "daily";r=0;t=3600, "second";r=0;t=1'}, (0, 3600)),
        ({"ratelimit": '"default";r=50;t=30, "daily";r=7;t=3600'}, (7, 3600)),
        ({"ratelimit": '"default";r=7;t=30, "daily";r=7;t=3600'}, (7, 3600)),
        ({"ratelimit": '"default";r=0;t=0'}, (0, 0)),
        ({"ratelimit": '"default";r=0'}, None),
        ({"ratelimit": '"default";r=0, "daily";r=0;t=30'}, (0, 30)),
        ({"ratelimit": '"default";r=0, "daily";r=5;t=30'}, None),
        ({"ratelimit": '"default";r=9, "daily";r=5;t=30'}, (5, 30)),
        ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "1.5s", **OPENAI_TOKENS}, (5, 1.5)),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1.5s", **OPENAI_TOKENS}, (0, 1.5)),
        ({**OPENAI_TOKENS, "x-ratelimit-remaining-tokens": "0", **azure("9", "1s")}, (0, 360)),
        (azure("-1", "-1"), None),
        (azure("-1", "0"), None),
        (azure("0", "-1"), None),
        (azure("0", "0"), None),
        ({**azure("-1", "0"), **OPENAI_TOKENS}, (149984, 360)),
        ({**azure("0", "-1"), **OPENAI_TOKENS}, (149984, 360)),
        (anthropic(requests=(49, 30), tokens=(8000, 20)), (49, 30)),
        (anthropic(requests=(49, 30), tokens=(0, 20), input_tokens=(0, 40), output_tokens=(800, 50)), (0, 40)),
    ],
)  # fmt: skip
def test_the_strictest_quota_of_a_family_counts(headers: dict[str, str], expected: tuple[float, float] | None) -> None:
    assert hint(headers) == expected


def test_the_families_come_in_order() -> None:
    headers = {
        "ratelimit": '"default";r=1;t=30',
        "ratelimit-remaining": "2",
        "ratelimit-reset": "30",
        "x-ratelimit-remaining": "3",
        "x-ratelimit-reset": "29",
        "x-ratelimit-reset-after": "30",
        "x-ratelimit-remaining-tokens": "4",
        "x-ratelimit-reset-tokens": "30s",
        "date": DATE,
        **anthropic(output_tokens=(5, 30)),
    }

    assert list(hints_in(headers)) == [(remaining, 30) for remaining in range(1, 6)]
    assert [found.remaining for found in hints_in({**headers, "ratelimit": '"default";r=1;t=x'})] == [2, 3, 4, 5]
    assert [found.resets_in for found in hints_in({**headers, "x-ratelimit-reset-after": "-1"})][2] == 29
    assert list(hints_in({})) == []


@pytest.mark.parametrize(
    ("value", "number"),
    [("0", 0.0), ("1.5", 1.5), (HUGE, LONGEST), ("", None), (" 1", None), ("1.", None), ("-1", None), ("nan", None)],
)  # fmt: skip
def test_a_number(value: str, number: float | None) -> None:
    assert number_in(value) == number


def test_a_timestamp() -> None:
    assert timestamp_in(DATE) == timestamp_in("Wed Oct 21 07:28:00 2026") == EPOCH
    assert timestamp_in(None) is timestamp_in("") is timestamp_in("yesterday") is None
