"""Telemetry that is told: the request's side of it, which only puts things into a queue, and the thread that empties that.

Nothing is imported and no thread runs before the first thing is told. The thread then waits a moment, so that importing
OpenTelemetry and an exporter, as much work as the first request is, does not compete with an instance's first requests.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shared.adapters.telemetry.breath import Breath
from shared.adapters.telemetry.happened import Ended, LogLine
from shared.adapters.telemetry.lines import HostFilter, LineHandler
from shared.core.records import RequestRecord
from shared.core.semconv import Instrument
from shared.core.telemetry import Attribute, Content, Measurement, TelemetryOptions, TraceContext
from shared.core.traceparent import begin
from shared.ports import Clock

if TYPE_CHECKING:
    from shared.adapters.telemetry.exporters import Exporters
    from shared.adapters.telemetry.telling import Telling

_log = logging.getLogger(__name__)

BOUND: Final = 4_096
"""Requests and lines that wait to be turned into telemetry. Beyond it requests are measured, but their spans are not told."""
CONTENT_BOUND: Final = 16_000_000
"""Characters of prompts and answers that wait with them."""
GAUGE_KEPT: Final = 180.0
"""Seconds for which a gauge's value is told again. Any longer, and an instance that looks no more contradicts one that does."""

_Series = tuple[str, frozenset[tuple[str, Attribute]]]
"""A gauge's name and the attributes of one of its values."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: until the exporter is loaded, between two looks into the queue, between two exports, and to close in."""

    first: float = 2.0
    look: float = 1.0
    send: float = 5.0
    close: float = 5.0


class Pipeline:
    """A `Telemetry` that tells. Methods may be called in any thread, and in a process forked from the one that made it."""

    def __init__(
        self,
        options: TelemetryOptions,
        clock: Clock,
        instance: str,
        *,
        open_exporters: Callable[[], Exporters],
        entropy: Callable[[], int],
        pace: Pace,
    ) -> None:
        self.content = options.content
        self._options = options
        self._clock = clock
        self._instance = instance
        self._open_exporters = open_exporters
        self._entropy = entropy
        self._pace = pace
        self._gauges: dict[_Series, tuple[Measurement, float]] = {}
        self._peaks: dict[_Series, Measurement] = {}
        self._handler = LineHandler(self._tell)
        self._filter = HostFilter(self._lines_flow)
        self._closed = False
        self._listening = True
        self._reset()
        self._handler.attach()
        self._filter.attach()

    def _reset(self) -> None:
        """Begin with nothing: here, and in a forked process, which has no threads and must not tell its parent's story."""
        self._process = os.getpid()
        self._queue: deque[Ended | LogLine] = deque()
        self._characters_in = self._characters_out = 0
        self._wake = threading.Event()
        self._emptied = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._telling: Telling | None = None

    # ---- the request's side ------------------------------------------------------------------------------------------

    def trace(self, traceparent: str | None) -> TraceContext | None:
        """Return the place of a request that begins now."""
        return begin(traceparent, self._entropy(), self._options.ratio)

    def ended(self, record: RequestRecord, trace: TraceContext | None, content: Content | None = None) -> None:
        """Put a request into the queue; without its spans if it waits for too many others."""
        if len(self._queue) >= BOUND:
            self._tell(Ended(record, spared=trace is not None and trace.sampled))
            return
        ended = Ended(record, trace, content if self.content else None)
        if ended.content is not None:
            if self._characters_in - self._characters_out + ended.size > CONTENT_BOUND:
                ended = Ended(record, trace)
            self._characters_in += ended.size
        self._tell(ended)

    def gauge(self, measurements: Sequence[Measurement]) -> None:
        """Keep the values until they are asked for."""
        now = self._clock.monotonic()
        for measurement in measurements:
            key = (measurement.instrument.name, frozenset(measurement.attributes.items()))
            self._gauges[key] = (measurement, now)
            if measurement.instrument.peak:
                known = self._peaks.get(key)
                self._peaks[key] = measurement if known is None or known.value < measurement.value else known
        if self._listening:
            self._begin()

    async def aclose(self) -> None:
        """Tell what is pending, for a few seconds at most; what is told afterwards is lost."""
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Do as `aclose`, and wait for it."""
        if self._closed:
            return
        self._closed = True
        self._listening = False
        self._handler.detach()
        self._filter.detach()
        atexit.unregister(self.close)
        thread = self._thread
        if thread is not None and self._process == os.getpid():
            self._wake.set()
            thread.join(self._pace.close)
            if thread.is_alive():
                _log.warning("Telemetry could not be told in time: what was pending is lost.")

    def _tell(self, item: Ended | LogLine) -> None:
        if not self._listening or (isinstance(item, LogLine) and len(self._queue) >= BOUND):
            return
        self._begin()
        self._queue.append(item)

    def _begin(self) -> None:
        if self._process != os.getpid():
            self._reset()
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
                    self._thread.start()
                    atexit.register(self.close)

    def _lines_flow(self) -> bool:
        return self._telling is not None and self._telling.lines_flow

    # ---- the thread's side -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._wake.wait(self._pace.first)
        try:
            telling = self._open()
        except Exception as error:  # noqa: BLE001 - whatever a library raises while it loads, requests go on
            what = error.name if isinstance(error, ModuleNotFoundError) else type(error).__name__
            _log.error("Telemetry is off: its exporter could not be opened (%s).", what)  # nothing more: it may hold a secret
            self._listening = False
            self._queue.clear()
            return
        self._telling = telling
        sender = threading.Thread(target=self._send, args=(telling,), name="telemetry-sending", daemon=True)
        sender.start()
        while self._listening:
            self._empty(telling)
            self._wake.wait(self._pace.look)
        self._empty(telling)
        self._emptied.set()
        sender.join()

    def _open(self) -> Telling:
        from shared.adapters.telemetry.telling import Telling  # noqa: PLC0415 - this is what imports OpenTelemetry

        exporters = self._open_exporters()
        return Telling(self._options, self._clock, self._instance, exporters=exporters, gauges=self._latest)

    def _empty(self, telling: Telling) -> None:
        breath = Breath()
        while self._queue:
            item = self._queue.popleft()
            telling.take(item)
            if self._listening:
                breath.take()
            if isinstance(item, Ended):
                self._characters_out += item.size

    def _send(self, telling: Telling) -> None:
        while not self._emptied.wait(self._pace.send):
            telling.send()
        telling.send(last=True)
        telling.close()

    def _latest(self, instrument: Instrument) -> Iterable[Measurement]:
        oldest = self._clock.monotonic() - GAUGE_KEPT
        for key, (measurement, told_at) in list(self._gauges.items()):
            if told_at < oldest:
                self._gauges.pop(key, None)
                self._peaks.pop(key, None)
            elif measurement.instrument is instrument:
                yield self._peaks.pop(key, measurement)
