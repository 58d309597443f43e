"""The one policy for waiting and trying again, and the one place for time-outs.

Only `Temporary` is tried again: an adapter decides what is temporary, this file decides how often. A
request that creates something is never wrapped in this: the caller looks first whether it arrived.
"""

from __future__ import annotations

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from connector.errors import Temporary

CONNECT_SECONDS = 5.0
READ_SECONDS = 120.0
"""Label Studio builds a page of 1000 tasks in some seconds and an export in one request."""

ATTEMPTS = 5
GIVE_UP_SECONDS = 120.0
LONGEST_WAIT_SECONDS = 30.0
"""Storage libraries try again by themselves: they are given these too."""

LEASE_SECONDS = 300.0
"""A holder of the label store's lease that shows no sign of life for so long is taken for dead. Each page
that is kept is such a sign, and with all attempts the tool may need minutes for one."""

_backoff = wait_random_exponential(multiplier=0.2, max=LONGEST_WAIT_SECONDS)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = getattr(error, "retry_after", None)
    return float(_backoff(state)) if asked is None else min(float(asked), LONGEST_WAIT_SECONDS)


patient = Retrying(
    retry=retry_if_exception_type(Temporary),
    wait=_wait,
    stop=stop_after_attempt(ATTEMPTS) | stop_after_delay(GIVE_UP_SECONDS),
    reraise=True,
)
"""Calls a function again while it raises `Temporary`: five times at most, two minutes at most."""
