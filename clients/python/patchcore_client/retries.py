"""Which requests are sent again, and when."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum

import httpx


class Repeat(Enum):
    """What a request may be repeated after."""

    ALWAYS = "always"
    """It changes nothing, or the same: after a refusal, a broken connection and a timeout."""
    UNLESS_LATE = "unless late"
    """The same, but after a timeout it may still run: after a refusal and a broken connection."""
    IF_REFUSED = "if refused"
    """Only where the gateway certainly did not do it: after a refusal, or where no connection was made."""


_REFUSALS = frozenset({429, 503})
_OF_PROXIES = frozenset({502, 504})
"""Answers of proxies. The gateway behind them may have done what was asked for."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how fast a request is sent again.

    The wait doubles from one attempt to the next. A random part of it, half to all, is waited, so that many clients do
    not come back at once. `Retry-After` of an answer is the shortest wait.
    """

    attempts: int = 4
    """Times that a request is sent, at most. 1 repeats nothing."""
    first_wait_s: float = 0.25
    longest_wait_s: float = 30
    """Longest wait between two attempts. An answer that asks for a longer one is raised at once."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 <= self.first_wait_s <= self.longest_wait_s:
            raise ValueError(f"{self}: expected attempts of at least 1 and 0 <= first_wait_s <= longest_wait_s")

    def wait_s(self, attempt: int, retry_after_s: float | None) -> float | None:
        """Return the seconds to wait after an attempt that failed, or None to give up.

        Args:
            attempt: number of the attempt, from 1.
            retry_after_s: what the answer asks for, if it does.
        """
        if attempt >= self.attempts or (retry_after_s or 0) > self.longest_wait_s:
            return None
        backoff = min(self.longest_wait_s, self.first_wait_s * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1)
        return max(backoff, retry_after_s or 0)


def may_repeat(repeat: Repeat, failure: httpx.TransportError | int) -> bool:
    """Return whether a request may be sent again.

    Args:
        repeat: what the request is.
        failure: the error of the connection, or the status of the answer.
    """
    if isinstance(failure, int):
        return failure in _REFUSALS or (failure in _OF_PROXIES and repeat is not Repeat.IF_REFUSED)
    if isinstance(failure, httpx.UnsupportedProtocol | httpx.ProxyError | httpx.LocalProtocolError):
        return False
    if isinstance(failure, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
        return True
    if isinstance(failure, httpx.TimeoutException):
        return repeat is Repeat.ALWAYS
    return repeat is not Repeat.IF_REFUSED


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `Retry-After` asks for (RFC 9110, section 10.2.3), or None without a valid one."""
    given = headers.get("retry-after", "").strip()
    if given.isdecimal():
        return float(given)
    try:
        moment = parsedate_to_datetime(given)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
