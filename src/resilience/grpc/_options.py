"""The options of guarded channels: gRPC itself must not repeat what the pipeline repeats."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

_SERVICE_CONFIG: Final = "grpc.service_config"
_DISABLE_RESOLUTION: Final = "grpc.service_config_disable_resolution"
_DEFAULTS: Final = (
    (_DISABLE_RESOLUTION, 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5000),
)
_REMOVED: Final = ("retryPolicy", "hedgingPolicy", "retryThrottling")
"""What makes gRPC repeat calls (gRFC A6)."""


def channel_options(options: Iterable[tuple[str, Any]] | None = ()) -> list[tuple[str, Any]]:
    """Return the options of a guarded channel, for a channel that is made elsewhere.

        grpc.intercept_channel(
            grpc.secure_channel(target, credentials, options=channel_options(options)), *client_interceptors(pipeline)
        )

    A channel may get a service config that has retry policies, from its options or from the name service. gRPC would
    then repeat calls by itself, unseen by interceptors, and the numbers of attempts would multiply: 4 attempts of gRPC
    in each of 3 attempts of the pipeline are 12 calls. So these policies are removed:

    - `grpc.service_config` is that of `options` without its `retryPolicy` and `hedgingPolicy`, or an empty one. If an
      option is given twice, gRPC uses the first, and so does this.
    - `grpc.service_config_disable_resolution` is 1, so that the service config of the name service is not used. Give it
      as 0 if you need that one, such as for xDS, and have it without retry policies.

    gRPC's transparent retries, of calls that no server has seen, stay enabled: without them a call fails that was sent
    while the server closed the connection, such as at its greatest age.

    `grpc.initial_reconnect_backoff_ms` is 100 and `grpc.max_reconnect_backoff_ms` is 5000, unless given: a channel that
    has lost its connection tries to connect again after 0.1 s, then after longer and longer waits of at most 5 s. The
    defaults of gRPC are 1 s and 2 minutes. During such a wait all calls fail at once without touching the network, so
    that retries after a short outage and the probes of a half-open circuit breaker would fail needlessly.

    Args:
        options: the options that the channel is to have otherwise, pairs of name and value; None for none.

    Returns:
        All options, for `options=` of a channel. Options that are not mentioned above are as given.

    Raises:
        ValueError: the service config is not the JSON of an object.
    """
    given = [*(options or ())]
    names = {name for name, _ in given}
    config = next((value for name, value in given if name == _SERVICE_CONFIG), "{}")
    return [
        (_SERVICE_CONFIG, _without_policies(config)),
        *(option for option in _DEFAULTS if option[0] not in names),
        *(option for option in given if option[0] != _SERVICE_CONFIG),
    ]


def _without_policies(config: Any) -> str:
    """Return a service config without what makes gRPC repeat calls."""
    try:
        parsed = json.loads(config)
    except (TypeError, ValueError):
        parsed = None
    if not isinstance(parsed, dict):
        raise ValueError(f"the option {_SERVICE_CONFIG} must be the JSON of an object, not {config!r}")
    return json.dumps(_stripped(parsed))


def _stripped(config: Any) -> Any:
    """Return a service config, or a part of it, without `_REMOVED`."""
    if isinstance(config, list):
        return [_stripped(one) for one in _items(config)]
    if isinstance(config, dict):
        return {name: _stripped(value) for name, value in _pairs(config) if name not in _REMOVED}
    return config


def _items(config: Any) -> list[Any]:
    return [*config]


def _pairs(config: Any) -> list[tuple[str, Any]]:
    return [*config.items()]
