"""The options of guarded channels: service configs without retry policies, and reconnection soon."""

from __future__ import annotations

import json
from typing import Any

import pytest

from resilience.grpc import channel_options

POLICY = {"maxAttempts": 4, "initialBackoff": "0.1s", "retryableStatusCodes": ["UNAVAILABLE"]}
DEFAULTS = {
    "grpc.service_config_disable_resolution": 1,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 5000,
}


def config_of(options: list[tuple[str, Any]]) -> Any:
    """Return the only service config in options, which comes first."""
    assert [name for name, _ in options].count("grpc.service_config") == 1
    assert options[0][0] == "grpc.service_config"
    return json.loads(options[0][1])


@pytest.mark.parametrize("none", [(), None, []])
def test_without_options_there_are_ours(none: Any) -> None:
    options = channel_options(none)

    assert config_of(options) == {}
    assert dict(options[1:]) == DEFAULTS


def test_the_policies_of_a_service_config_are_removed_and_the_rest_is_kept() -> None:
    method = {"name": [{"service": "shop.Shop"}], "timeout": "3s", "waitForReady": True}
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
        "methodConfig": [{**method, "retryPolicy": POLICY}, {**method, "hedgingPolicy": {"maxAttempts": 2}}],
    }
    options = channel_options([("grpc.service_config", json.dumps(config))])

    assert config_of(options) == {"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": [method, method]}


def test_of_two_service_configs_the_first_counts_as_it_does_in_grpc() -> None:
    first, second = '{"loadBalancingConfig": [{"pick_first": {}}]}', '{"methodConfig": []}'
    options = channel_options([("grpc.service_config", first), ("grpc.service_config", second)])

    assert config_of(options) == json.loads(first)


@pytest.mark.parametrize("name", DEFAULTS)
def test_what_the_caller_gives_replaces_ours(name: str) -> None:
    options = channel_options([(name, 7), ("grpc.max_receive_message_length", 9)])

    assert [value for one, value in options if one == name] == [7]
    assert ("grpc.max_receive_message_length", 9) in options


def test_retries_stay_enabled_unless_the_caller_disables_them() -> None:
    assert "grpc.enable_retries" not in dict(channel_options())
    assert dict(channel_options([("grpc.enable_retries", 0)]))["grpc.enable_retries"] == 0


@pytest.mark.parametrize("config", ["", "[]", "nonsense", "7", None, "{"])
def test_a_service_config_is_the_json_of_an_object(config: Any) -> None:
    with pytest.raises(ValueError, match=r"grpc\.service_config must be the JSON of an object"):
        channel_options([("grpc.service_config", config)])


@pytest.mark.parametrize("odd", [{"methodConfig": 7}, {"methodConfig": [7, None]}, {"other": {"retryPolicy": 1}}])
def test_an_odd_service_config_is_left_to_grpc(odd: Any) -> None:
    expected = {"other": {}} if "other" in odd else odd
    assert config_of(channel_options([("grpc.service_config", json.dumps(odd))])) == expected
