"""`/metrics`: the latest figures of every running instance and host in Prometheus' text format 0.0.4, for operators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from portal.accounts.access import actor_of_headers, require_operator
from portal.errors import PortalError, problem_response
from portal.fleet.models import Host
from portal.releases.models import Instance
from portal.telemetry import redis
from worker.protocol import MetricSample, metric_stream

type Labels = Mapping[str, str]
type Series = Iterable[tuple[Labels, MetricSample]]

_FIGURES: tuple[tuple[str, str, str, Callable[[MetricSample], float]], ...] = (
    ("cpu_seconds_total", "counter", "CPU time used.", lambda s: s.cpu_ns / 1e9),
    ("cpu_throttled_seconds_total", "counter", "Time held back by the CPU limit.", lambda s: s.throttled_ns / 1e9),
    ("cpu_limit_cores", "gauge", "CPU limit; 0 is none.", lambda s: s.cpu_limit_millicores / 1000),
    ("memory_bytes", "gauge", "Memory in use.", lambda s: s.memory_bytes),
    ("memory_limit_bytes", "gauge", "Memory limit; 0 is none.", lambda s: s.memory_limit_bytes),
    ("network_receive_bytes_total", "counter", "Bytes received.", lambda s: s.net_in_total),
    ("network_transmit_bytes_total", "counter", "Bytes sent.", lambda s: s.net_out_total),
    ("disk_read_bytes_total", "counter", "Bytes read from disk.", lambda s: s.disk_read_total),
    ("disk_written_bytes_total", "counter", "Bytes written to disk.", lambda s: s.disk_write_total),
    ("disk_used_bytes", "gauge", "Size of the writable layer.", lambda s: s.disk_used_bytes),
    ("processes", "gauge", "Processes and threads.", lambda s: s.pids),
)


@require_GET
def metrics(request: HttpRequest) -> HttpResponse:
    """The page that Prometheus scrapes with `Authorization: Bearer <operator token>`."""
    try:
        headers = {name.lower(): value for name, value in request.headers.items()}
        require_operator(actor_of_headers(headers, method="GET"))
    except PortalError as error:
        return problem_response(error)
    text = "".join((*_instances(_latest()), *_hosts()))
    return HttpResponse(text, content_type="text/plain; version=0.0.4; charset=utf-8")


def _latest() -> list[tuple[Labels, MetricSample]]:
    rows = list(Instance.objects.exclude(wanted="removed").select_related("app__team", "host").order_by("pk"))
    pipe = redis.client().pipeline(transaction=False)
    for row in rows:
        pipe.xrevrange(metric_stream(row.pk), count=1)
    found: list[tuple[Labels, MetricSample]] = []
    for row, newest in zip(rows, pipe.execute(), strict=True):
        if newest:
            labels = {
                "team": row.app.team.slug,
                "app": row.app.slug,
                "instance_id": row.pk,
                "process": row.process,
                "host": row.host.name,
            }
            found.append((labels, MetricSample.unpack(newest[0][1][b"s"])))
    return found


def _instances(series: Series) -> Iterator[str]:
    for name, kind, text, figure in _FIGURES:
        yield _head(f"moorage_instance_{name}", kind, text)
        for labels, sample in series:
            yield _line(f"moorage_instance_{name}", labels, figure(sample))


def _hosts() -> Iterator[str]:
    rows = list(Host.objects.order_by("name"))
    yield _head("moorage_host_seen_timestamp_seconds", "gauge", "When the host last reported.")
    for row in rows:
        yield _line(
            "moorage_host_seen_timestamp_seconds", {"host": row.name}, row.seen_at.timestamp() if row.seen_at else 0
        )
    for fact in ("cpu_millicores", "memory_bytes", "disk_bytes", "disk_free_bytes"):
        yield _head(f"moorage_host_{fact}", "gauge", f"What the host has: {fact.replace('_', ' ')}.")
        for row in rows:
            yield _line(f"moorage_host_{fact}", {"host": row.name}, float(row.facts.get(fact, 0)))


def _head(name: str, kind: str, text: str) -> str:
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _line(name: str, labels: Labels, value: float) -> str:
    pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{pairs}}} {value:.15g}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
