"""Packets that few clients send, through the daemon: what is a knock nevertheless, and what makes no difference."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from port_knocking_doors.model import Address
from port_knocking_doors.sandbox import ClientHost, Host, Process, Sandbox
from tests.helpers import frames
from tests.helpers.doorstep import said
from tests.helpers.frames import FRAGMENT, TCP, Extension, Frame
from tests.helpers.raw_frames import link_address, send_frames
from tests.helpers.raw_knock import send_tcp
from tests.helpers.running import GUARDED, SEQUENCE, doors, knock, wait_open
from tests.helpers.sniffed import FLAGS_STEP, RIGHT, SYN_STEP, UDP_STEP, knock_udp, sniffing, whole_sequence
from tests.helpers.waiting import wait_until

UDP4 = Frame(port=UDP_STEP, payload=6)
SYN4 = Frame(protocol=TCP, port=SYN_STEP, flags=0x02)
FRAP4 = Frame(protocol=TCP, port=FLAGS_STEP, flags=0x1D)
STEPS4 = (UDP4, SYN4, FRAP4)
STEPS6 = tuple(replace(step, version=6) for step in STEPS4)
WRONG4, WRONG6 = (replace(steps[1], flags=0x01) for steps in (STEPS4, STEPS6))
"""On the bare SYN's port, and so a wrong knock after the first step."""

CHAIN = (Extension(frames.HOP_BY_HOP, 1), Extension(frames.ROUTING), Extension(frames.DESTINATION))
LATER = (Extension(FRAGMENT, place=1),)

KNOCKS: dict[str, tuple[Frame, ...]] = {
    "plain": STEPS4,
    "plain, IPv6": STEPS6,
    "IPv4 options": tuple(replace(step, options=3) for step in STEPS4),
    "all the IPv4 options that there is room for": tuple(replace(step, options=10) for step in STEPS4),
    "first fragments": tuple(replace(step, more=True) for step in STEPS4),
    "first fragments behind options": tuple(replace(step, more=True, options=2) for step in STEPS4),
    "first fragments of IPv6": tuple(replace(step, extensions=(Extension(FRAGMENT, more=True),)) for step in STEPS6),
    "atomic fragments of IPv6": tuple(replace(step, extensions=(Extension(FRAGMENT),)) for step in STEPS6),
    "extension headers": tuple(replace(step, extensions=CHAIN) for step in STEPS6),
    "extension headers and a first fragment": tuple(
        replace(step, extensions=(*CHAIN, Extension(FRAGMENT, more=True))) for step in STEPS6
    ),
    "padding of the link": tuple(replace(step, payload=0, padding=18) for step in STEPS4),
    "a priority mark of the link": tuple(replace(step, tag=0xE000) for step in STEPS4),
    "the bits of ECN": (UDP4, *(replace(step, flags=step.flags | 0xC0) for step in STEPS4[1:])),
    "longer than one frame": tuple(replace(step, payload=1400) for step in STEPS4),
}
"""Whole sequences, each packet of the kind."""

EVERYBODY4, GROUP4 = IPv4Address("10.0.1.255"), IPv4Address("224.0.0.1")
GROUP6 = IPv6Address("ff02::1")
ELSEWHERE4, ELSEWHERE6 = IPv4Address("10.0.1.99"), IPv6Address("fd00:0:0:1::99")

KINDS: dict[str, tuple[int, dict[str, object]]] = {
    "a later fragment": (4, {"place": 1}),
    "a later fragment, the last": (4, {"place": 185, "options": 1}),
    "a later fragment of IPv6": (6, {"extensions": LATER}),
    "a later fragment behind extension headers": (6, {"extensions": (*CHAIN, *LATER)}),
    "five extension headers": (6, {"extensions": (Extension(frames.DESTINATION),) * 5}),
    "encrypted": (6, {"extensions": (Extension(frames.AUTHENTICATION),)}),
    "broadcast": (4, {"kind": frames.TO_ALL, "destination": EVERYBODY4}),
    "broadcast on the link alone": (4, {"kind": frames.TO_ALL}),
    "broadcast, addressed to us on the link": (4, {"destination": EVERYBODY4}),
    "broadcast everywhere": (4, {"kind": frames.TO_ALL, "destination": IPv4Address("255.255.255.255")}),
    "multicast": (4, {"kind": frames.TO_GROUP, "destination": GROUP4}),
    "multicast, addressed to us on the link": (4, {"destination": GROUP4}),
    "multicast of IPv6": (6, {"kind": frames.TO_GROUP, "destination": GROUP6}),
    "multicast of IPv6, addressed to us on the link": (6, {"destination": GROUP6}),
    "to another host on the link": (4, {"kind": frames.TO_OTHER}),
    "to another host": (4, {"destination": ELSEWHERE4}),
    "to another host, IPv6": (6, {"destination": ELSEWHERE6}),
    "to no address": (4, {"destination": IPv4Address("0.0.0.0")}),
    "half a header": (4, {"cut": 24}),
    "a length that denies its header": (4, {"claimed_length": 24, "padding": 20}),
    "an IPv4 header that is too short": (4, {"claimed_words": 4}),
    "IPv4 by its link, IPv6 by itself": (4, {"claimed_version": 6}),
    "on a VLAN that is not there": (4, {"tag": 5}),
}
"""What is no knock, by the family and what is odd about it."""


def odd(frame: Frame, oddity: dict[str, object]) -> Frame:
    return replace(frame, **oddity)  # type: ignore[arg-type]


class Street:
    """Knockers on the client's link: each case has one of its own, by a forged address."""

    def __init__(self, box: Sandbox, client: ClientHost) -> None:
        self._client = client
        self._links = {
            frames.TO_HOST: link_address(box.server, client.server_interface),
            frames.TO_ALL: b"\xff" * 6,
            frames.TO_GROUP: bytes.fromhex("01005e000001"),
            frames.TO_OTHER: bytes.fromhex("020000000077"),
        }
        self._own = link_address(client, client.interface)
        self._count = 9
        self._on_wire: list[bytes] = []

    def plan(self, packets: tuple[Frame, ...], source: Address | None = None) -> Address:
        """Send these from a new address, or from this one; the address is returned."""
        if source is None:
            self._count += 1
            first: Address = IPv4Address("10.0.1.0") if packets[0].version == 4 else IPv6Address("fd00:0:0:1::")
            source = first + self._count
        self._on_wire += [replace(one, source=source).ethernet(self._links[one.kind], self._own) for one in packets]
        return source

    def knock(self) -> None:
        """Send all that was planned, in order."""
        send_frames(self._client, self._client.interface, self._on_wire)
        self._on_wire.clear()


def opens_for_all(daemon: Process, knockers: dict[Address, str]) -> None:
    """Wait until the door is open for each."""

    def shut() -> list[str]:
        return [name for address, name in knockers.items() if not said(daemon, f"{address}: opened")]

    wait_until(lambda: not shut(), 15, lambda: f"open in spite of {shut()}")


def test_wrapped_knock_counts(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = sniffing(box, tmp_path, {"duration": 60})
    street = Street(box, client)
    knockers = {street.plan(packets): name for name, packets in KNOCKS.items()}
    street.knock()
    opens_for_all(daemon, knockers)
    assert "wrong knock" not in daemon.stderr.text
    assert len(doors(box)) == len(KNOCKS)


def test_packet_that_is_no_knock_neither_helps_nor_hurts(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    """Of each kind: as the last step it opens nothing, and as a wrong step it spoils nothing."""
    daemon = sniffing(box, tmp_path, {"duration": 60}, ignoring_period_after_knock_error=60)
    street = Street(box, client)
    helped: dict[Address, str] = {}
    hurt: dict[Address, str] = {}
    for name, (version, oddity) in KINDS.items():
        steps, wrong = (STEPS4, WRONG4) if version == 4 else (STEPS6, WRONG6)
        helped[street.plan((*steps[:2], odd(steps[2], oddity)))] = name
        hurt[street.plan((steps[0], odd(wrong, oddity), *steps[1:]))] = name
    last = street.plan(STEPS4)
    street.knock()
    opens_for_all(daemon, {**hurt, last: "nothing"})
    assert [name for address, name in helped.items() if said(daemon, f"{address}: opened")] == [], "these help"
    assert "wrong knock" not in daemon.stderr.text
    assert len(doors(box)) == len(KINDS) + 1


def test_wrong_step_that_odd_packets_resemble_hurts(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    """So the test above can fail."""
    daemon = sniffing(box, tmp_path, ignoring_period_after_knock_error=60)
    street = Street(box, client)
    for steps, wrong in ((STEPS4, WRONG4), (STEPS6, WRONG6)):
        knocker = street.plan((steps[0], wrong, *steps[1:]))
        street.knock()
        daemon.wait_for(f"{knocker}: wrong knock")
    right = street.plan(STEPS4)
    street.knock()
    daemon.wait_for(f"{right}: opened")
    assert len(doors(box)) == 1


NOBODY = (
    *("0.0.0.0", "0.9.9.9", "127.0.0.1", "127.9.9.9", "224.0.0.9", "255.255.255.255", "10.0.1.1"),
    *("::", "::1", "::ffff:10.0.1.77", "::ffff:127.0.0.1", "ff02::9", "fd00:0:0:1::1"),
)
"""Sources that no packet of another host has, among them the server's own addresses."""


def test_packets_from_nobody_are_no_knocks_of_either_receiver(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = sniffing(box, tmp_path, {"duration": 60}, options=("-v",))
    street = Street(box, client)
    listened = tuple(Frame(port=port, payload=b"knock\n", is_summed=True) for port in SEQUENCE)
    for source in map(ip_address, NOBODY):
        for steps in (STEPS4, listened):
            street.plan(tuple(replace(step, version=source.version) for step in steps), source)
    street.plan(STEPS4, EVERYBODY4)
    last = street.plan(STEPS4)
    street.knock()
    daemon.wait_for(f"{last}: opened")
    rules = doors(box)
    assert len(rules) == 1, rules
    assert "wrong knock" not in daemon.stderr.text


def test_knocks_to_many_hosts_at_once_count_with_neither_receiver(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    daemon = sniffing(box, tmp_path, {"duration": 60}, options=("-v",), payload="any")
    street = Street(box, client)
    for destination, kind in (
        (EVERYBODY4, frames.TO_ALL),
        (IPv4Address("255.255.255.255"), frames.TO_ALL),
        (GROUP4, frames.TO_GROUP),
        (GROUP4, frames.TO_HOST),
        (GROUP6, frames.TO_GROUP),
        (GROUP6, frames.TO_HOST),
    ):
        to_many = Frame(version=destination.version, destination=destination, kind=kind)
        for port in (*SEQUENCE, UDP_STEP):
            street.plan((replace(to_many, port=port, payload=b"knock\n", is_summed=True),))
    last = street.plan(tuple(Frame(port=port, payload=b"knock\n", is_summed=True) for port in SEQUENCE))
    street.knock()
    daemon.wait_for(f"{last}: opened")
    heard = [line for line in daemon.stderr.lines if "knock" in line and f"{last}:" not in line and "ready" not in line]
    assert heard == []


def test_address_of_local_route_is_knocked_at_like_any_other(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    daemon = sniffing(box, tmp_path, {"duration": 1})
    stranger = box.hosts["stranger"]
    to: dict[int, Address] = {4: IPv4Address("192.0.2.7"), 6: IPv6Address("2001:db8:9::7")}
    for host in (client, stranger):
        host.run(["ip", "route", "add", "192.0.2.0/24", "via", str(host.server4)])
        host.run(["ip", "-6", "route", "add", "2001:db8:9::/64", "via", str(host.server6)])
    whole_sequence(client, to[4])  # not this host's yet
    for network in ("192.0.2.0/24", "2001:db8:9::/64"):
        box.server.run(["ip", "route", "add", "local", network, "dev", "lo"])
    for version in (4, 6):
        whole_sequence(client, to[version])
        knock(stranger, to[version])
        for host in (client, stranger):
            address = host.address4 if version == 4 else host.address6
            daemon.wait_for(f"{address}: opened")
    assert "wrong knock" not in daemon.stderr.text
    box.server.run(["ip", "route", "delete", "local", "192.0.2.0/24", "dev", "lo"])
    whole_sequence(client, to[4])
    last = box.add_client("last")
    whole_sequence(last, last.server4)
    daemon.wait_for(f"{last.address4}: opened")
    assert daemon.stderr.text.count(f"{client.address4}: opened") == 1


def retransmitted(host: Host) -> int:
    """How many segments of TCP the host's kernel has sent again (RFC 2012, tcpRetransSegs)."""
    names, values = (
        line.split()[1:] for line in host.run(["cat", "/proc/net/snmp"]).stdout.splitlines() if line.startswith("Tcp:")
    )
    return int(dict(zip(names, values, strict=True))["RetransSegs"])


def test_retransmitted_syn_is_no_wrong_knock(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    """The server answers nothing at all, so each SYN is sent again after a second: between steps and at the end."""
    box.firewall_cmd("--zone=drop", f"--change-interface={client.server_interface}")
    another = SYN_STEP + 50
    daemon = sniffing(box, tmp_path, {"steps": [f"udp:{UDP_STEP}", f"tcp:{SYN_STEP}", f"tcp:{another}"], "duration": 5})
    with box.server.listen(GUARDED):
        knock_udp(client, client.server4)
        for number, port in enumerate((SYN_STEP, another), 1):
            assert client.connect(client.server4, port, timeout=1.5) == "timeout"
            assert retransmitted(client) >= number
        wait_open(client, client.server4)
        knock_udp(client, client.server4)  # accepted at once: nothing was wrong
        send_tcp(client, client.server4, [RIGHT[0], (another, "s")], source_port=40001)
        daemon.wait_for(f"{client.address4}: prolonged")
    assert "wrong knock" not in daemon.stderr.text
