"""What is reported of test packets, beside what the settings of firewalld say."""

from dataclasses import replace
from typing import Any

import pytest

from port_knocking_doors.doctor import packets
from port_knocking_doors.doctor.expected import Expected
from port_knocking_doors.doctor.finding import Finding, ok, problem, warning
from port_knocking_doors.doctor.observation import Observation, Passage, Way
from port_knocking_doors.doctor.packets import about_packets, findings
from port_knocking_doors.doctor.programs import NotProvenError
from port_knocking_doors.doctor.trace import Decision
from port_knocking_doors.firewall.zones import Zones
from port_knocking_doors.model import Access, Port, Protocol, Sequence, Settings, Step

OPEN, LIMITED, CLOSED = Passage.OPEN, Passage.LIMITED, Passage.CLOSED
ETH4, ETH6, VPN = Way("eth0", 4), Way("eth0", 6), Way("wg0", 4)
SSH, WEB = Port(22), Port(80)
KNOCKS = [Port(port, Protocol.UDP) for port in (7001, 7002)]
SNIFFED = Sequence("web", (Step(Protocol.UDP, 8009),), Access.of("web", (WEB,)))
SETTINGS = Settings(opening_sequence=(7001, 7002), sequences=(SNIFFED,))
ZONES = Zones("public", {"wg0": "trusted"}, known=frozenset({"public", "trusted"}))
EXPECTED = Expected(ZONES)
SHOWN_WAYS = "eth0 (IPv4, IPv6), wg0 (IPv4)"
GUARDED_OK = ok(f"guarded ports: closed without a knock (22/tcp, 80/tcp): test packets are denied on {SHOWN_WAYS}")
KNOCKS_OK = ok(f"knock ports: test datagrams to all 2 arrive on {SHOWN_WAYS}")
DOORS_OK = ok(f"doors: test packets pass where a door opens on {SHOWN_WAYS}")
THEIRS = Decision("inet", "mine", "input", "tcp dport { 22, 7001, 8009 } drop")
STRICT = Decision("inet", "firewalld", "filter_IN_policy_on holiday_deny", "udp dport 7001 reject")
DENY = Decision("inet", "firewalld", "filter_IN_public_deny", "drop")
ALLOW = Decision("ip", "nat", "input", "tcp dport 22 accept", accepts=True)


def seen(
    changed: dict[tuple[Way, Port], Passage] | None = None,
    doors: dict[tuple[Way, Port], Passage] | None = None,
    decisions: dict[tuple[Way, Port], Decision | None] | None = None,
    **more: Any,
) -> Observation:
    """A healthy host: guarded ports are closed, doors let in, knocks arrive. With changes."""
    ways = (ETH4, ETH6, VPN)
    as_is = {(way, port): CLOSED if port in (SSH, WEB) else OPEN for way in ways for port in (SSH, WEB, *KNOCKS)}
    as_is |= changed or {}
    with_doors = {key: OPEN for key, passage in as_is.items() if passage is CLOSED} | (doors or {})
    return Observation(as_is, with_doors, decisions or {}, frozenset(), True, False)._replace(**more)


REPORTS: dict[str, tuple[Expected, Observation, list[Finding]]] = {
    "healthy": (EXPECTED, seen(), [GUARDED_OK, KNOCKS_OK, DOORS_OK]),
    "no firewalld": (
        Expected(),
        seen(has_firewalld=False, with_doors={}),
        [GUARDED_OK, KNOCKS_OK],
    ),
    "no firewalld, open": (
        Expected(),
        seen({(VPN, SSH): OPEN}, has_firewalld=False, with_doors={}),
        [
            problem(
                "port 22/tcp: OPEN WITHOUT A KNOCK: a test packet from outside arrives on wg0 (IPv4); firewalld has no "
                "rule in the kernel"
            ),
            replace(GUARDED_OK, text=GUARDED_OK.text.replace("22/tcp, ", "")),
            KNOCKS_OK,
        ],
    ),
    "flushed": (
        EXPECTED,
        seen({(way, port): OPEN for way in (ETH4, ETH6, VPN) for port in (SSH, WEB)}, has_firewalld=False),
        [
            problem(
                "firewalld: runs, but the kernel has none of its rules: another program flushed them, such as `nft "
                "flush ruleset`, and no door can open: systemctl restart firewalld"
            ),
            problem(
                f"ports 22/tcp, 80/tcp: OPEN WITHOUT A KNOCK: a test packet from outside arrives on {SHOWN_WAYS}; "
                "firewalld has no rule in the kernel: systemctl restart firewalld"
            ),
            KNOCKS_OK,
        ],
    ),
    "open by a rule": (
        EXPECTED,
        seen({(ETH6, SSH): OPEN}, decisions={(ETH6, SSH): ALLOW}),
        [
            problem(
                "port 22/tcp: OPEN WITHOUT A KNOCK: a test packet from outside arrives on eth0 (IPv6); the rule that "
                "accepts it: table ip nat, chain input, `tcp dport 22 accept`"
            ),
            replace(GUARDED_OK, text=GUARDED_OK.text.replace("22/tcp, ", "")),
            KNOCKS_OK,
            DOORS_OK,
        ],
    ),
    "failed": (
        EXPECTED._replace(failed=True),
        seen({(way, SSH): OPEN for way in (ETH4, ETH6, VPN)}, decisions={(ETH4, SSH): ALLOW}),
        [
            problem(
                f"port 22/tcp: OPEN WITHOUT A KNOCK: a test packet from outside arrives on {SHOWN_WAYS}; firewalld is "
                "in the state FAILED"
            ),
            replace(GUARDED_OK, text=GUARDED_OK.text.replace("22/tcp, ", "")),
            KNOCKS_OK,
            DOORS_OK,
        ],
    ),
    "open without a rule": (
        EXPECTED,
        seen({(VPN, WEB): OPEN}),
        [
            problem(
                "port 80/tcp: OPEN WITHOUT A KNOCK: a test packet from outside arrives on wg0 (IPv4); no rule denies "
                "it: `nft list ruleset` shows the rules"
            ),
            replace(GUARDED_OK, text=GUARDED_OK.text.replace(", 80/tcp", "")),
            KNOCKS_OK,
            DOORS_OK,
        ],
    ),
    "open to all, and reported to be open to some": (
        EXPECTED._replace(limited=frozenset({SSH})),
        seen({(VPN, SSH): OPEN}),
        [
            problem(
                "port 22/tcp: OPEN WITHOUT A KNOCK: a test packet from outside arrives on wg0 (IPv4); no rule denies "
                "it: `nft list ruleset` shows the rules"
            ),
            replace(GUARDED_OK, text=GUARDED_OK.text.replace("22/tcp, ", "")),
            KNOCKS_OK,
            DOORS_OK,
        ],
    ),
    "open to some": (
        EXPECTED,
        seen({(ETH4, WEB): LIMITED}, decisions={(ETH4, WEB): ALLOW}),
        [
            warning(
                "port 80/tcp: open to some addresses without a knock: a test packet from outside arrives on eth0 "
                "(IPv4); the rule that accepts it: table ip nat, chain input, `tcp dport 22 accept`"
            ),
            replace(GUARDED_OK, text=GUARDED_OK.text.replace(", 80/tcp", "")),
            KNOCKS_OK,
            DOORS_OK,
        ],
    ),
    "open, and reported of its zone": (
        EXPECTED._replace(exposed=frozenset({("trusted", SSH)})),
        seen({(VPN, SSH): OPEN}),
        [replace(GUARDED_OK, text=GUARDED_OK.text.replace("22/tcp, ", "")), KNOCKS_OK, DOORS_OK],
    ),
    "open to some, and reported of their zone": (
        EXPECTED._replace(limited=frozenset({WEB})),
        seen({(ETH4, WEB): LIMITED}),
        [replace(GUARDED_OK, text=GUARDED_OK.text.replace(", 80/tcp", "")), KNOCKS_OK, DOORS_OK],
    ),
    "open, and reported of a policy": (
        EXPECTED._replace(exposed=frozenset({("", SSH)})),
        seen({(ETH4, SSH): OPEN}),
        [replace(GUARDED_OK, text=GUARDED_OK.text.replace("22/tcp, ", "")), KNOCKS_OK, DOORS_OK],
    ),
    "redirected": (
        EXPECTED,
        seen(redirected=frozenset({SSH}), doors={(ETH4, SSH): CLOSED}),
        [replace(GUARDED_OK, text=GUARDED_OK.text.replace("22/tcp, ", "")), KNOCKS_OK, DOORS_OK],
    ),
    "queue": (
        EXPECTED,
        seen(queues=True),
        [
            warning(
                "guarded ports: not verified (22/tcp, 80/tcp): a rule leaves packets to another program (NFQUEUE), "
                "whose verdict cannot be seen"
            ),
            KNOCKS_OK,
            DOORS_OK,
        ],
    ),
    "knocks denied by another table": (
        EXPECTED,
        seen(
            {(ETH4, KNOCKS[0]): CLOSED, (ETH6, KNOCKS[0]): CLOSED},
            decisions={(ETH4, KNOCKS[0]): THEIRS, (ETH6, KNOCKS[0]): THEIRS._replace(rule="another")},
        ),
        [
            GUARDED_OK,
            problem(
                "knock ports: test datagrams to 1 of 2 do not arrive on eth0 (IPv4, IPv6): denied by table inet mine, "
                "chain input, which firewalld cannot undo: accept these packets there, too (`nft list chain inet mine "
                "input` shows its rules)"
            ),
            ok("knock ports: test datagrams to all 2 arrive on wg0 (IPv4)"),
            DOORS_OK,
        ],
    ),
    "knocks denied by a policy": (
        EXPECTED,
        seen({(VPN, KNOCKS[0]): CLOSED, (VPN, KNOCKS[1]): CLOSED}, decisions={(VPN, KNOCKS[0]): STRICT}),
        [
            GUARDED_OK,
            problem(
                "knock ports: test datagrams to 2 of 2 do not arrive on wg0 (IPv4): denied by policy on holiday of "
                "firewalld, ahead of the zone: let the policy accept these packets, or change its rules (firewall-cmd "
                "--info-policy='on holiday' shows them)"
            ),
            ok("knock ports: test datagrams to all 2 arrive on eth0 (IPv4, IPv6)"),
            DOORS_OK,
        ],
    ),
    "knocks denied, and reported of the zone": (
        EXPECTED._replace(shut=frozenset({"trusted"})),
        seen({(VPN, KNOCKS[0]): CLOSED}),
        [GUARDED_OK, ok("knock ports: test datagrams to all 2 arrive on eth0 (IPv4, IPv6)"), DOORS_OK],
    ),
    "doors denied by another table": (
        EXPECTED,
        seen(doors={(ETH4, SSH): CLOSED, (ETH4, WEB): CLOSED}, decisions={(ETH4, SSH): THEIRS, (ETH4, WEB): THEIRS}),
        [
            GUARDED_OK,
            KNOCKS_OK,
            problem(
                "ports 22/tcp, 80/tcp: a door has no effect on eth0 (IPv4): denied by table inet mine, chain input, "
                "`tcp dport { 22, PORT, PORT } drop`, which firewalld cannot undo: accept these packets there, too "
                "(`nft list chain inet mine input` shows its rules)"
            ),
        ],
    ),
    "doors denied by firewalld": (
        EXPECTED,
        seen(doors={(ETH4, SSH): CLOSED, (ETH4, WEB): CLOSED}, decisions={(ETH4, SSH): DENY}),
        [
            GUARDED_OK,
            KNOCKS_OK,
            problem(
                "port 22/tcp: a door has no effect on eth0 (IPv4): denied by table inet firewalld, chain "
                "filter_IN_public_deny, `drop`: see `nft list chain inet firewalld filter_IN_public_deny`"
            ),
            problem(
                "port 80/tcp: a door has no effect on eth0 (IPv4): a rule ahead of the zone denies them: `nft list "
                "ruleset` shows the rules"
            ),
        ],
    ),
    "doors denied, and reported of the zone": (
        EXPECTED._replace(denied=frozenset({("public", SSH)})),
        seen(doors={(ETH4, SSH): CLOSED, (ETH6, SSH): CLOSED}),
        [GUARDED_OK, KNOCKS_OK, DOORS_OK],
    ),
}


@pytest.mark.parametrize(("expected", "observation", "found"), REPORTS.values(), ids=REPORTS)
def test_report_says_what_was_seen_with_its_reason(
    expected: Expected, observation: Observation, found: list[Finding]
) -> None:
    assert list(findings(SETTINGS, expected, observation, has_daemon=True)) == found


def test_knock_ports_count_as_open_before_the_daemon_has_opened_them() -> None:
    shut: dict[tuple[Way, Port], Passage] = {(way, port): CLOSED for way in (ETH4, ETH6, VPN) for port in KNOCKS}
    later = ", once the daemon has opened them (open_knock_ports)"
    found = list(findings(SETTINGS, EXPECTED, seen(shut), has_daemon=False))
    assert found == [GUARDED_OK, replace(KNOCKS_OK, text=KNOCKS_OK.text + later), DOORS_OK]
    unknown = seen(shut, with_doors={})
    assert list(findings(SETTINGS, EXPECTED, unknown, has_daemon=False)) == [GUARDED_OK]
    assert list(findings(SETTINGS, EXPECTED, seen(with_doors={}), has_daemon=False)) == [GUARDED_OK, KNOCKS_OK]


def test_knock_ports_are_not_reported_without_an_opening_sequence() -> None:
    settings = replace(SETTINGS, opening_sequence=())
    assert list(findings(settings, EXPECTED, seen(), has_daemon=True)) == [GUARDED_OK, DOORS_OK]


def test_doors_and_knocks_count_in_the_configured_zone_alone() -> None:
    settings = replace(SETTINGS, zone="trusted")
    elsewhere = {(way, port): CLOSED for way in (ETH4, ETH6) for port in (SSH, WEB, *KNOCKS)}
    found = list(findings(settings, EXPECTED, seen(elsewhere, elsewhere), has_daemon=True))
    here = [replace(one, text=one.text.replace("eth0 (IPv4, IPv6), ", "")) for one in (KNOCKS_OK, DOORS_OK)]
    assert found == [GUARDED_OK, *here]


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (
            NotProvenError("run as root"),
            EXPECTED,
            "firewall: not verified with test packets that guarded ports are closed and knocks arrive: run as root",
        ),
        (
            None,
            EXPECTED._replace(panic=True),
            "firewall: not verified with test packets, since panic mode drops them all",
        ),
    ],
)
def test_packets_that_could_not_be_sent_are_a_warning(
    error: NotProvenError | None, expected: Expected, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Observation:
        assert error is not None
        raise error

    monkeypatch.setattr(packets, "observe", refuse)
    tested = about_packets(SETTINGS, expected, has_daemon=True)
    assert tested.findings == [warning(text)]


def test_links_of_containers_and_virtual_machines_are_not_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def observe(*arguments: object) -> Observation:
        asked.append(arguments)
        return seen()

    monkeypatch.setattr(packets, "observe", observe)
    monkeypatch.setattr(packets, "used_interfaces", lambda: ["eth0", "docker0", "virbr0"])
    zones = replace(ZONES, interfaces={"docker0": "docker", "virbr0": "libvirt", "eth0": "public"})
    assert about_packets(SETTINGS, Expected(zones), has_daemon=True).findings[0] == GUARDED_OK
    assert asked == [([SSH, WEB], KNOCKS, "", ["docker0", "virbr0"])]
