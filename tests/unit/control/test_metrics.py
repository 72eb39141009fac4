"""The state of the daemon for Prometheus."""

import math
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from port_knocking_doors.control import metrics
from tests.unit.control.test_status import SNAPSHOT


def families(text: str) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_prometheus_parses_every_sample() -> None:
    found = families(metrics.prometheus(SNAPSHOT))
    samples = {
        (sample.name.removeprefix("port_knocking_doors_"), *sample.labels.values()): sample.value
        for family in found.values()
        for sample in family.samples
    }
    assert samples == {
        ("up",): 1,
        ("info", '2.0 "x"\\'): 1,
        ("uptime_seconds",): 200000.5,
        ("listening_ports",): 5,
        ("sniffing",): 1,
        ("sniffer_packets_total",): 1234,
        ("sniffer_dropped_total",): 5,
        ("firewalld_state", "present"): 0,
        ("firewalld_state", "absent"): 0,
        ("firewalld_state", "hung"): 1,
        ("firewalld_state", "refusing"): 0,
        ("firewalld_state", "failed"): 0,
        ("firewalld_state", "flushed"): 0,
        ("firewalld_state", "unused"): 0,
        ("rules",): 7,
        ("rules_pending",): 2,
        ("rules_refused",): 1,
        ("doors", "open"): 4,
        ("doors", "waiting"): 1,
        ("doors_limit",): 1024,
        ("knockers",): 9,
        ("knockers_ignored",): 1,
        ("knockers_limit",): 65536,
        ("sequences_complete_total",): 8,
        ("wrong_knocks_total",): 4,
        ("doors_opened_total",): 5,
        ("doors_prolonged_total",): 2,
        ("doors_closed_total",): 3,
        ("doors_closed_by_knock_total",): 2,
        ("doors_refused_total",): 1,
    }


def test_metrics_have_help_and_type_before_samples() -> None:
    text = metrics.prometheus(SNAPSHOT)
    assert text.endswith("\n")
    for family in families(text).values():
        assert family.type in ("gauge", "counter")
        assert family.documentation.endswith(".")
        assert all(sample.name.endswith("_total") == (family.type == "counter") for sample in family.samples)
        assert all(math.isfinite(sample.value) for sample in family.samples)
    lines = text.splitlines()
    for name in {line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")}:
        of_it = [line for line in lines if name in line.replace("{", " ").split(" ")]
        assert [line.split(" ")[1] for line in of_it[:2]] == ["HELP", "TYPE"]


def test_metrics_without_daemon_are_up_0() -> None:
    (family,) = families(metrics.prometheus(None)).values()
    assert [(sample.name, sample.value) for sample in family.samples] == [("port_knocking_doors_up", 0)]
