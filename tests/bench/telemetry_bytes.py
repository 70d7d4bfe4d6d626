"""How many bytes of telemetry a request is: what Application Insights is sent for it, before compression.

    python -m tests.bench.telemetry_bytes

A request with one attempt, and its share of the metrics when a thousand of them make one export.
"""

from __future__ import annotations

from typing import Final

from shared.adapters.clock import SystemClock
from shared.adapters.telemetry import open_telemetry
from shared.adapters.telemetry.pipeline import Pace, Pipeline
from shared.core.registry import Secret
from shared.core.telemetry import Destination, TelemetryOptions
from tests.telemetry.ingestion import Ingestion
from tests.telemetry.scenes import attempt, request

TIMES: Final = 1000


def main() -> None:
    """Print the number."""
    with Ingestion() as ingestion:
        options = TelemetryOptions(Destination.AZURE_MONITOR, Secret(ingestion.connection_string))
        telemetry = open_telemetry(options, SystemClock(), "bench", pace=Pace(first=3600.0))
        assert isinstance(telemetry, Pipeline)
        told = telemetry._open()
        for number in range(TIMES):
            telemetry.ended(request(f"req_{number:032x}", attempt(1)), telemetry.trace(None))
        telemetry._empty(told)
        told.send(last=True)
        told.close()
        sent = sum(len(post.body) for post in ingestion.posts)
        telemetry.close()
    print(f"{sent / TIMES:,.0f} bytes a request")


if __name__ == "__main__":
    main()
