"""The state of the daemon in Prometheus' text exposition format."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from port_knocking_doors.control.status import Snapshot
from port_knocking_doors.model import FirewalldState
from port_knocking_doors.system.printable import escaped

_PREFIX = "port_knocking_doors"


@dataclass(frozen=True)
class _Metric:
    name: str
    kind: str
    text: str
    samples: Callable[[Snapshot], Iterable[tuple[Mapping[str, str], float]]]


def _one(value: Callable[[Snapshot], float]) -> Callable[[Snapshot], Iterable[tuple[Mapping[str, str], float]]]:
    return lambda now: [({}, value(now))]


def _doors_by_standing(now: Snapshot) -> Iterable[tuple[Mapping[str, str], float]]:
    return [({"state": "open"}, now.doors_open - now.doors_waiting), ({"state": "waiting"}, now.doors_waiting)]


_METRICS = (
    _Metric("info", "gauge", "Version of the daemon.", lambda now: [({"version": now.version}, 1)]),
    _Metric("uptime_seconds", "gauge", "Seconds since the daemon started.", _one(lambda now: now.uptime)),
    _Metric("listening_ports", "gauge", "UDP knock ports with a listening socket.", _one(lambda now: now.listeners)),
    _Metric("sniffing", "gauge", "Whether packets are sniffed.", _one(lambda now: now.sniffing)),
    _Metric(
        "sniffer_packets_total",
        "counter",
        "Packets that passed the filter.",
        _one(lambda now: now.sniffer_seen),
    ),
    _Metric(
        "sniffer_dropped_total",
        "counter",
        "Of those, packets dropped because the ring was full.",
        _one(lambda now: now.sniffer_dropped),
    ),
    _Metric(
        "firewalld_state",
        "gauge",
        "State of firewalld: 1 for the current one.",
        lambda now: [({"state": state.value}, state is now.firewalld) for state in FirewalldState],
    ),
    _Metric("rules", "gauge", "Rules of this daemon in firewalld.", _one(lambda now: now.rules)),
    _Metric("rules_pending", "gauge", "Rules to be added or removed yet.", _one(lambda now: now.rules_pending)),
    _Metric("rules_refused", "gauge", "Rules that firewalld refused last.", _one(lambda now: now.rules_refused)),
    _Metric("doors", "gauge", "Doors that are open, or wait for firewalld or a command.", _doors_by_standing),
    _Metric("doors_limit", "gauge", "Doors that may be open at most.", _one(lambda now: now.doors_limit)),
    _Metric("knockers", "gauge", "Knockers that are remembered.", _one(lambda now: now.knockers_known)),
    _Metric("knockers_ignored", "gauge", "Knockers that are ignored now.", _one(lambda now: now.knockers_ignored)),
    _Metric("knockers_limit", "gauge", "Knockers remembered at most.", _one(lambda now: now.knockers_limit)),
    _Metric("sequences_complete_total", "counter", "Sequences completed.", _one(lambda now: now.counts.complete)),
    _Metric("wrong_knocks_total", "counter", "Wrong knocks.", _one(lambda now: now.counts.wrong)),
    _Metric("doors_opened_total", "counter", "Doors opened.", _one(lambda now: now.counts.opened)),
    _Metric("doors_prolonged_total", "counter", "Doors prolonged.", _one(lambda now: now.counts.prolonged)),
    _Metric("doors_closed_total", "counter", "Doors closed.", _one(lambda now: now.counts.closed)),
    _Metric(
        "doors_closed_by_knock_total",
        "counter",
        "Of those, doors closed by their knocker ahead of time.",
        _one(lambda now: now.counts.closed_by_knock),
    ),
    _Metric(
        "doors_refused_total",
        "counter",
        "Doors refused because of max_open_doors.",
        _one(lambda now: now.counts.refused),
    ),
)


def prometheus(snapshot: Snapshot | None) -> str:
    """The text exposition format (prometheus.io, "Exposition formats"); None if no daemon answers."""
    lines = list(_exposed("up", "gauge", "Whether the daemon answers.", [({}, snapshot is not None)]))
    if snapshot is not None:
        for metric in _METRICS:
            lines += _exposed(metric.name, metric.kind, metric.text, metric.samples(snapshot))
    return "\n".join(lines) + "\n"


def _exposed(name: str, kind: str, text: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Iterator[str]:
    yield f"# HELP {_PREFIX}_{name} {text}"
    yield f"# TYPE {_PREFIX}_{name} {kind}"
    for labels, value in samples:
        inside = ",".join(f'{label}="{_quoted(escaped(content))}"' for label, content in labels.items())
        yield f"{_PREFIX}_{name}{{{inside}}} {_number(value)}" if inside else f"{_PREFIX}_{name} {_number(value)}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.3f}"


def _quoted(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
