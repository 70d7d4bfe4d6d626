"""Turns what has happened into OpenTelemetry's data, and sends it: the two halves of the telemetry's work, a thread for each.

The first half never waits for anybody, so that everything told is counted at once and memory stays small; the second talks to
the destination, and may be held up by it for as long as it likes.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from shared.adapters.telemetry import otel
from shared.adapters.telemetry.exporters import Exporters, Fate, Sent
from shared.adapters.telemetry.happened import Ended, LogLine
from shared.adapters.telemetry.lanes import Item, Lane, Pause
from shared.core import semconv
from shared.core.telemetry import Destination, Measurement, TelemetryOptions
from shared.core.telling import measurements_of, spans_of
from shared.ports import Clock

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.trace import ReadableSpan

_log = logging.getLogger(__name__)

QUIET: Final = 10.0
"""Seconds after which what was measured is told although the interval is not over: an idle instance may be taken away."""
COMPLAIN: Final = 300.0
"""Seconds between two complaints of a kind."""
_SPAN_BYTES: Final = 1_000
"""About what a span takes beside the texts in it."""


class Complaints:
    """Says what goes wrong, and not too often."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._silent_until: dict[str, float] = {}

    def say(self, what: str, why: str) -> None:
        """Log it, unless the same was said a while ago."""
        now = self._clock.monotonic()
        if now >= self._silent_until.get(what, float("-inf")):
            self._silent_until[what] = now + COMPLAIN
            _log.warning("%s: %s", what, why)


class Telling:
    """Both halves: `take` is called by the first thread, `send` and `close` by the second."""

    def __init__(
        self, options: TelemetryOptions, clock: Clock, instance: str, *, exporters: Exporters, gauges: otel.Gauges
    ) -> None:
        # only Azure Monitor wants to be told the rate: elsewhere the sampled flag says enough
        self._ratio = options.ratio if options.destination is Destination.AZURE_MONITOR else 1.0
        self._interval = options.metric_interval
        self._clock = clock
        self._exporters = exporters
        self._who = otel.resource(options.service, instance)
        self._complaints = Complaints(clock)
        self._spans: Lane[tuple[ReadableSpan, ...]] = Lane(self._send_spans)
        self._logs: Lane[ReadableLogRecord] = Lane(exporters.logs)
        self._instruments = otel.Instruments(self._who, exporters.metric_exporter, gauges)
        self._unsent: deque[MetricsData] = deque()
        self._metrics_pause = Pause()
        self._metrics_at = clock.monotonic() + options.metric_interval
        self._measured_at: float | None = None
        self._spared = 0
        self._dropped = 0

    @property
    def lines_flow(self) -> bool:
        """Say whether log lines arrive."""
        return self._logs.flows

    # ---- the first half ----------------------------------------------------------------------------------------------

    def take(self, item: Ended | LogLine) -> None:
        """Take one thing that happened."""
        try:
            if isinstance(item, LogLine):
                self._logs.add(otel.log_record(item, self._who), len(item.message) + len(item.stack))
            else:
                self._ended(item)
        except Exception as error:  # noqa: BLE001 - one record that cannot be told must not silence all others
            self._complaints.say("Something that happened could not be told", type(error).__name__)

    def _ended(self, ended: Ended) -> None:
        self._instruments.record(measurements_of(ended.record))
        self._measured_at = self._clock.monotonic()
        self._spared += ended.spared
        if ended.trace is not None and ended.trace.sampled:
            told = spans_of(ended.record, ended.trace, ended.content)
            texts = (value for span in told for value in span.attributes.values() if isinstance(value, str))
            size = _SPAN_BYTES * len(told) + sum(map(len, texts))
            self._spans.add(tuple(otel.readable(span, self._who, self._ratio) for span in told), size)

    # ---- the second half ---------------------------------------------------------------------------------------------

    def send(self, *, last: bool = False) -> None:
        """Send what is ready and due; everything when it is the ``last`` time."""
        self._measured(last=last)  # first: a backlog of spans may take longer than there is time for
        self._empty(self._spans, "Spans", last=last)
        self._empty(self._logs, "Log lines", last=last)
        if self._count_dropped() and last:
            self._measured(last=True)

    def close(self) -> None:
        """Close connections."""
        self._instruments.close()
        self._exporters.close()

    def _measured(self, *, last: bool) -> None:
        if last and self._unsent:
            self._send_metrics()  # what was kept, and then what came after it
        if not self._unsent and (last or self._is_due()):
            self._unsent.extend(self._instruments.collect())
            self._metrics_at = self._clock.monotonic() + self._interval
        if last or self._clock.monotonic() >= self._metrics_pause.until:
            self._send_metrics()

    def _empty(self, lane: Lane[Item], what: str, *, last: bool) -> None:
        if last:
            lane.pause = Pause()
        end = lane.gone + len(lane)  # what comes meanwhile has to wait: as long as there are requests, there would be no end
        while lane.gone < end and (sent := lane.flush(self._clock.monotonic())) is not None:
            if sent.fate is not Fate.SENT:
                self._complaints.say(f"{what} were not taken", sent.why)
                return
            self._measured(last=False)  # those of the minute are not late because there is much to send

    def _send_spans(self, requests: Sequence[tuple[ReadableSpan, ...]]) -> Sent:
        return self._exporters.spans([span for request in requests for span in request])

    def _count_dropped(self) -> bool:
        dropped = self._spared + self._spans.turned_away + self._spans.given_up
        if dropped == self._dropped:
            return False
        self._instruments.record([Measurement(semconv.DROPPED, dropped - self._dropped)])
        self._dropped = dropped
        return True

    def _is_due(self) -> bool:
        now, measured = self._clock.monotonic(), self._measured_at
        if now < self._metrics_at and (measured is None or now - measured < QUIET):
            return False
        self._measured_at = None
        return True

    def _send_metrics(self) -> None:
        while self._unsent:
            sent = self._exporters.metrics(self._unsent[0])
            self._metrics_pause.told(sent, self._clock.monotonic())
            if sent.fate is not Fate.SENT:
                self._complaints.say("Metrics were not taken", sent.why)
            if sent.fate is Fate.LATER:
                # What was kept is told first, alone: until then the instruments go on adding up, and nothing is lost. Where
                # totals are told there is nothing to keep: the next ones contain these.
                if not self._exporters.delta:
                    self._unsent.clear()
                return
            self._unsent.popleft()
