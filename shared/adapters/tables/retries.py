"""When a request to the store is sent again: the one place that decides it (docs in the class).

Nothing below repeats by itself: the `HttpTransport` never does. So whatever the store answers to a write is about that very
send. A 409 or 412 is never the echo of an earlier one that did land, and nobody above has to guess.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Final

from shared.adapters.tables.azure_wire import Answer
from shared.core.errors import StorageUnavailableError
from shared.ports import Clock, ConnectError, ResponseTooLargeError, TlsError, TransportError, TransportTimeoutError

WITHIN: Final = 3.0
"""Seconds after the first attempt began up to which another may begin."""

LEAST: Final = 0.005
MOST: Final = 1.0
"""Bounds of the typical pause between attempts, in seconds."""

_GAIN: Final = 0.2
_IN_VAIN: Final = (TransportTimeoutError, TlsError, ResponseTooLargeError)
_TOO_MANY: Final = 429
_UNAVAILABLE: Final = 503
_SERVER_ERROR: Final = 500
_REQUEST_TIMEOUT: Final = 408


class Retries:
    """Sends again what certainly did not happen, and reads, with pauses that follow the round trip.

    | what became of the attempt                         | read  | write |
    |----------------------------------------------------|-------|-------|
    | not sent: no connection, no token                  | again | again |
    | answered 429, or 503 with the code ServerBusy      | again | again |
    | connection lost; any other 5xx, 408                | again | never |
    | silence until the time limit, TLS refused          | never | never |
    | anything else is an answer                         | —     | —     |

    After silence not even a read is sent again: the time is spent. A pause is one round trip as lately seen, doubled with each
    attempt, times a random factor between a half and one and a half: a store that slows down under load is asked less often.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._round_trip = LEAST

    async def answered(self, send: Callable[[], Awaitable[Answer]], *, repeatable: bool) -> Answer:
        """Send until there is an answer; ``repeatable`` says that sending twice does no harm.

        Raise `StorageUnavailableError`: of what is not repeatable nobody knows then whether it happened.
        """
        clock = self._clock
        until = clock.monotonic() + WITHIN
        for attempt in itertools.count():
            began = clock.monotonic()
            cause: TransportError | None = None
            try:
                answer = await send()
            except TransportError as error:
                cause = error
                again = _unsent(error) or (repeatable and not isinstance(error, _IN_VAIN))
                reason = _reason(error)
            else:
                self._round_trip += _GAIN * (clock.monotonic() - began - self._round_trip)
                busy = is_busy(answer)
                if not (busy or is_unclear(answer)):
                    return answer
                again = busy or repeatable
                reason = f"it answered {answer.status} {answer.code}".replace(f" HTTP {answer.status}", "")
            pause = self._pause(attempt)
            if not again or clock.monotonic() + pause > until:
                message = f"The store did not answer: {reason}."
                raise StorageUnavailableError(message, retry_after=1.0) from cause
            await clock.sleep(pause)
        raise AssertionError  # pragma: no cover - the loop above has no end

    def _pause(self, attempt: int) -> float:
        usual = min(MOST, max(LEAST, self._round_trip) * 2.0 ** min(attempt, 16))
        return usual * (0.5 + self._clock.draw())


def is_busy(answer: Answer) -> bool:
    """Tell whether the store was throttling: it has done nothing."""
    return answer.status == _TOO_MANY or (answer.status == _UNAVAILABLE and answer.code == "ServerBusy")


def is_unclear(answer: Answer) -> bool:
    """Tell whether the answer leaves open what has happened."""
    return answer.status >= _SERVER_ERROR or answer.status == _REQUEST_TIMEOUT


def _unsent(error: TransportError) -> bool:
    return isinstance(error, ConnectError) or (isinstance(error, TransportTimeoutError) and not error.sent)


def _reason(error: TransportError) -> str:
    """Say it in the store's terms: the transport's own words are about model providers."""
    match error:
        case TransportTimeoutError(sent=True):
            return "it was silent for too long"
        case TlsError():
            return "the TLS handshake failed"
        case ResponseTooLargeError():
            return "what it sent is too large"
        case ConnectError() | TransportTimeoutError():
            return "there is no connection to it"
    return "the connection was lost"
