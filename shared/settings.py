"""The environment as one frozen record, with every problem reported at once.

| setting | default | meaning |
|---|---|---|
| `SWITCHYARD_CATALOG` | `catalog/models.yaml` | the catalog file |
| `SWITCHYARD_DEPLOYMENTS` | unset | JSON of Terraform: which models are deployed where (`shared/catalog/infrastructure.py`) |
| `SWITCHYARD_STORAGE` | `sqlite:.switchyard/state.db` | where state is kept: `sqlite:PATH`, `memory:` … |
| `SWITCHYARD_ADMIN_KEY` | none | the administrator's key, at least 16 characters |
| `SWITCHYARD_UPSTREAM` | unset | `simulator` or a simulator's URL: every provider is replaced by it |
| `SWITCHYARD_ALLOW_ANONYMOUS` | unset | `1`: calls without a key are served, as key `anonymous` of project `default` |
| `SWITCHYARD_REDIS` | unset | `redis://` or `rediss://` URL: rate limits are counted there, and not in the tables |
| `SWITCHYARD_ENTRA_TENANT` | unset | directory id: Entra ID tokens of this tenant are taken beside keys |
| `SWITCHYARD_ENTRA_AUDIENCE` | unset | the application id, or its URI, that those tokens must be for |
| `SWITCHYARD_ENTRA_PROJECT_CLAIM` | unset | the claim that names the project; unset, everybody's is `default` |
| `SWITCHYARD_WEBHOOK_HOSTS` | unset | hosts that budget alerts and ends of background work may be told to, comma-separated |
| `SWITCHYARD_WEBHOOK_SECRET` | unset | signs those messages, at least 16 characters; needed to send any |
| `SWITCHYARD_USAGE_DAYS` | unset | days for which single requests are kept; what they add up to is kept for good |
| `SWITCHYARD_CORS_ORIGINS` | unset | browser origins that may call, comma-separated; `*` is all |
| `SWITCHYARD_MAX_BODY_BYTES` | 10485760 | larger request bodies are refused with 413 |
| `SWITCHYARD_MAX_FILE_BYTES` | 209715200 | larger uploaded files are refused with 413 |
| `SWITCHYARD_MAX_IN_FLIGHT` | 4000 | requests this instance carries at once; more are refused with 503 |
| `HOST`, `PORT` | `127.0.0.1`, `8000` | the local host's address |
| `SWITCHYARD_TELEMETRY` | see below | where telemetry goes: `off`, `console`, `otlp` or `azure_monitor` |
| `APPLICATIONINSIGHTS_CONNECTION_STRING` | unset | Application Insights, told with the app's identity |
| `OTEL_EXPORTER_OTLP_ENDPOINT` | `http://localhost:4318` | an OpenTelemetry collector, told by OTLP over HTTP |
| `OTEL_SDK_DISABLED` | unset | `true`: nothing is told, whatever else is set |
| `OTEL_SERVICE_NAME` | `switchyard` | what this service is called in telemetry |
| `OTEL_TRACES_SAMPLER_ARG` | 1 | the share of traces that are told, from 0 to 1; metrics are always whole |
| `OTEL_METRIC_EXPORT_INTERVAL` | 60000 | milliseconds between two exports of metrics |
| `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` | unset | `true`: spans carry prompts and answers |

Telemetry goes to Azure Monitor if there is a connection string, else to a collector if an endpoint is named, else nowhere.

State is kept in one SQLite file (`sqlite:PATH`), in memory, in the Table Storage emulator on this machine (`azurite:`, or
`azurite:http://127.0.0.1:PORT/devstoreaccount1`), or in Table Storage with managed identity
(`https://ACCOUNT.table.core.windows.net`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from shared.core.errors import ConfigurationError
from shared.core.registry import UNRESOLVED, Secret
from shared.core.telemetry import Destination, TelemetryOptions

SIMULATOR: Final = "simulator"
MIN_SECRET: Final = 16
MAX_PORT: Final = 65_535
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"", "0", "false", "no", "off"})
_CONTENT: Final = {"span_only": True, "span_and_event": True, "no_content": False}
"""What newer instrumentations write instead of true and false; we have no events."""
_KEY: Final = re.compile(r"(^|;)\s*instrumentationkey\s*=\s*[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\s*(;|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator set. ``upstream`` is None, ``simulator``, or the URL of a running simulator."""

    catalog: str = "catalog/models.yaml"
    storage: str = "sqlite:.switchyard/state.db"
    admin_key: Secret | None = None
    upstream: str | None = None
    allow_anonymous: bool = False
    redis: Secret | None = None
    entra_tenant: str | None = None
    entra_audience: str | None = None
    entra_project_claim: str | None = None
    webhook_hosts: tuple[str, ...] = ()
    webhook_secret: Secret | None = None
    usage_days: int | None = None
    cors_origins: tuple[str, ...] = ()
    max_body_bytes: int = 10 * 1024 * 1024
    max_file_bytes: int = 200 * 1024 * 1024
    max_in_flight: int = 4000
    host: str = "127.0.0.1"
    port: int = 8000
    telemetry: TelemetryOptions = field(default_factory=TelemetryOptions)

    @property
    def simulated(self) -> bool:
        """Say whether answers come from the simulator."""
        return self.upstream is not None


def load(environment: Mapping[str, str]) -> Settings:
    """Read the settings; raise `ConfigurationError` with every problem."""
    problems: list[str] = []
    defaults = Settings()
    settings = Settings(
        catalog=environment.get("SWITCHYARD_CATALOG") or defaults.catalog,
        storage=environment.get("SWITCHYARD_STORAGE") or defaults.storage,
        admin_key=_secret(environment, "SWITCHYARD_ADMIN_KEY", problems),
        upstream=_upstream(environment, problems),
        allow_anonymous=_flag(environment, "SWITCHYARD_ALLOW_ANONYMOUS", problems),
        redis=_redis(environment, problems),
        entra_tenant=environment.get("SWITCHYARD_ENTRA_TENANT") or None,
        entra_audience=environment.get("SWITCHYARD_ENTRA_AUDIENCE") or None,
        entra_project_claim=environment.get("SWITCHYARD_ENTRA_PROJECT_CLAIM") or None,
        webhook_hosts=tuple(_list(environment, "SWITCHYARD_WEBHOOK_HOSTS")),
        webhook_secret=_secret(environment, "SWITCHYARD_WEBHOOK_SECRET", problems),
        usage_days=_integer(environment, "SWITCHYARD_USAGE_DAYS", 0, problems) or None,
        cors_origins=_origins(environment, problems),
        max_body_bytes=_integer(environment, "SWITCHYARD_MAX_BODY_BYTES", defaults.max_body_bytes, problems),
        max_file_bytes=_integer(environment, "SWITCHYARD_MAX_FILE_BYTES", defaults.max_file_bytes, problems),
        max_in_flight=_integer(environment, "SWITCHYARD_MAX_IN_FLIGHT", defaults.max_in_flight, problems),
        host=environment.get("HOST") or defaults.host,
        port=_port(environment, defaults.port, problems),
        telemetry=_telemetry(environment, problems),
    )
    if (settings.entra_tenant is None) != (settings.entra_audience is None):
        problems.append("SWITCHYARD_ENTRA_TENANT and SWITCHYARD_ENTRA_AUDIENCE go together: set both, or neither")
    if settings.webhook_hosts and settings.webhook_secret is None:
        problems.append("SWITCHYARD_WEBHOOK_HOSTS needs SWITCHYARD_WEBHOOK_SECRET, so that receivers can tell our alerts")
    if problems:
        raise ConfigurationError("The settings have problems: " + "; ".join(problems), problems=problems)
    return settings


def _secret(environment: Mapping[str, str], name: str, problems: list[str]) -> Secret | None:
    value = environment.get(name)
    if not value:
        return None
    if value.startswith(UNRESOLVED):
        problems.append(f"Azure could not read {name} from Key Vault: docs/runbook.md, Rotating keys")
    if len(value) < MIN_SECRET or any(character.isspace() for character in value):
        problems.append(f"{name} must have at least {MIN_SECRET} characters and no spaces")
    return Secret(value)


def _redis(environment: Mapping[str, str], problems: list[str]) -> Secret | None:
    url = environment.get("SWITCHYARD_REDIS")
    if url and not url.startswith(("redis://", "rediss://")):
        problems.append("SWITCHYARD_REDIS must be a redis:// or rediss:// URL")
    return Secret(url) if url else None


def _list(environment: Mapping[str, str], name: str) -> list[str]:
    return [part.strip() for part in environment.get(name, "").split(",") if part.strip()]


def _upstream(environment: Mapping[str, str], problems: list[str]) -> str | None:
    upstream = environment.get("SWITCHYARD_UPSTREAM") or None
    if upstream is None or upstream == SIMULATOR or upstream.startswith(("http://127.0.0.1:", "http://localhost:")):
        return upstream
    problems.append("SWITCHYARD_UPSTREAM must be `simulator`, or the loopback URL of one; leave it unset for real providers")
    return None


def _origins(environment: Mapping[str, str], problems: list[str]) -> tuple[str, ...]:
    origins = tuple(part.rstrip("/") for part in _list(environment, "SWITCHYARD_CORS_ORIGINS"))
    problems.extend(
        f"SWITCHYARD_CORS_ORIGINS: `{origin}` is not an origin such as https://app.example.com, or *"
        for origin in origins
        if origin != "*" and not origin.startswith(("https://", "http://"))
    )
    return origins


def _flag(environment: Mapping[str, str], name: str, problems: list[str]) -> bool:
    value = environment.get(name, "").strip().lower()
    if value not in _TRUE | _FALSE:
        problems.append(f"{name} must be 1 or 0, not `{value}`")
    return value in _TRUE


def _integer(environment: Mapping[str, str], name: str, default: int, problems: list[str]) -> int:
    value = environment.get(name, "").strip()
    if not value:
        return default
    if not value.isascii() or not value.isdigit() or int(value) == 0:
        problems.append(f"{name} must be a whole number above 0, not `{value}`")
        return default
    return int(value)


def _port(environment: Mapping[str, str], default: int, problems: list[str]) -> int:
    if environment.get("PORT", "").strip() == "0":
        return 0  # any free port
    port = _integer(environment, "PORT", default, problems)
    if port > MAX_PORT:
        problems.append(f"PORT must be at most {MAX_PORT}, not {port}")
    return port


def _telemetry(environment: Mapping[str, str], problems: list[str]) -> TelemetryOptions:
    defaults = TelemetryOptions()
    connection_string = environment.get("APPLICATIONINSIGHTS_CONNECTION_STRING", "").strip()
    endpoint = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    destination = _destination(environment, problems, connection_string=connection_string, endpoint=endpoint)
    if destination is Destination.AZURE_MONITOR and not _KEY.search(connection_string):
        problems.append(
            "APPLICATIONINSIGHTS_CONNECTION_STRING must be what the portal shows for Application Insights "
            "(InstrumentationKey=…;IngestionEndpoint=…), unless SWITCHYARD_TELEMETRY is off"
        )
    if destination is Destination.OTLP and endpoint and not endpoint.startswith(("http://", "https://")):
        problems.append("OTEL_EXPORTER_OTLP_ENDPOINT must be an http:// or https:// URL, such as http://localhost:4318")
    interval = _integer(environment, "OTEL_METRIC_EXPORT_INTERVAL", round(defaults.metric_interval * 1000), problems)
    return TelemetryOptions(
        destination=destination,
        connection_string=Secret(connection_string) if connection_string else None,
        endpoint=(endpoint or defaults.endpoint).rstrip("/"),
        service=environment.get("OTEL_SERVICE_NAME", "").strip() or defaults.service,
        ratio=_ratio(environment, "OTEL_TRACES_SAMPLER_ARG", defaults.ratio, problems),
        metric_interval=interval / 1000,
        content=_captures(environment, "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", problems),
    )


def _destination(environment: Mapping[str, str], problems: list[str], *, connection_string: str, endpoint: str) -> Destination:
    named = environment.get("SWITCHYARD_TELEMETRY", "").strip().lower()
    if named and named not in set(Destination):
        problems.append(f"SWITCHYARD_TELEMETRY must be one of {', '.join(Destination)}, not `{named}`")
        return Destination.OFF
    if _flag(environment, "OTEL_SDK_DISABLED", problems):
        return Destination.OFF
    if named:
        return Destination(named)
    if connection_string:
        return Destination.AZURE_MONITOR
    return Destination.OTLP if endpoint else Destination.OFF


def _captures(environment: Mapping[str, str], name: str, problems: list[str]) -> bool:
    known = _CONTENT.get(environment.get(name, "").strip().lower())
    return _flag(environment, name, problems) if known is None else known


def _ratio(environment: Mapping[str, str], name: str, default: float, problems: list[str]) -> float:
    value = environment.get(name, "").strip()
    if not value:
        return default
    try:
        ratio = float(value)
    except ValueError:
        ratio = math.nan
    if not 0 <= ratio <= 1:
        problems.append(f"{name} must be a number from 0 to 1, not `{value}`")
        return default
    return ratio
