"""Waiting for AWS: one loop with backoff, messages, heartbeat, timeout and cancellation, for everything that takes
minutes (boto3 has no waiters for integrations and export tasks)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Backoff:
    """Seconds between polls: `first`, then times `factor` up to `cap`, each changed by ±`jitter` (a share)."""

    first: float = 2.0
    factor: float = 1.5
    cap: float = 30.0
    jitter: float = 0.1

    def delays(self) -> Iterator[float]:
        delay = self.first
        while True:
            yield delay * (1 + random.uniform(-self.jitter, self.jitter))
            delay = min(delay * self.factor, self.cap)


class WaitTimeout(Exception, Generic[T]):
    """The time was over. `last` is what was seen last."""

    def __init__(self, message: str, last: T) -> None:
        super().__init__(message)
        self.last = last


def wait_for(
    read: Callable[[], T],
    *,
    until: Callable[[T], bool],
    describe: Callable[[T], str],
    timeout_seconds: float,
    report: Callable[[str], None],
    poll: Backoff | None = None,
    heartbeat_seconds: float = 60.0,
    cancel: Callable[[], None] | None = None,
    passing: Callable[[Exception], str | None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Poll `read` until `until(value)`; returns that value.

    Reports each change of `describe(value)`, and at least every `heartbeat_seconds` how long it has taken. `cancel` is
    called when the wait is interrupted from outside (Ctrl-C, a terminated run: both are BaseExceptions that are no
    Exceptions), not on a timeout and not when `read` fails. `passing` gives the reason why an error of `read` is no end
    of the wait: it is reported, and the next poll asks again. Raises `WaitTimeout` naming what was seen last, or the
    passing error when that was the last thing seen.
    """
    began = told_at = clock()
    told = None
    delays = (poll or Backoff()).delays()
    try:
        while True:
            value, failed = _read(read, passing)
            now = clock()
            elapsed = now - began
            seen = failed[1] if failed is not None else describe(value)
            if failed is None and until(value):
                if seen != told and told is not None:
                    report(seen)
                return value
            if elapsed >= timeout_seconds:
                if failed is not None:
                    raise failed[0]
                raise WaitTimeout(f"after {elapsed:.0f} s it is still: {seen}", value)
            if seen != told:
                report(seen)
                told, told_at = seen, now
            elif now - told_at >= heartbeat_seconds:
                report(f"{seen} ({elapsed:.0f} of at most {timeout_seconds:.0f} s)")
                told_at = now
            sleep(min(next(delays), heartbeat_seconds, max(timeout_seconds - elapsed, 0.01)))
    except Exception:
        raise
    except BaseException:
        if cancel is not None:
            _cancel(cancel, report)
        raise


def _cancel(cancel: Callable[[], None], report: Callable[[str], None]) -> None:
    """What is raised afterwards is the interruption, whether or not this works."""
    try:
        cancel()
    except Exception as error:
        report(f"could not be cancelled: {error}")


def _read(
    read: Callable[[], T], passing: Callable[[Exception], str | None] | None
) -> tuple[T, None] | tuple[Any, tuple[Exception, str]]:
    """What `read` gives, or the error that passes with its reason."""
    try:
        return read(), None
    except Exception as error:
        reason = passing(error) if passing is not None else None
        if reason is None:
            raise
        return None, (error, reason)
