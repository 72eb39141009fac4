"""`doctor`'s test packets against real ones: what it says is what becomes of a connection, of a door, of a knock."""

import sys
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from port_knocking_doors.sandbox import ClientHost, Sandbox
from tests.helpers.running import GUARDED, SEQUENCE, door_rule, write_configuration
from tests.helpers.waiting import wait_until
from tests.system.test_doctor import about, doctor

BASE_CHAIN = """table inet mine {{
  chain input {{
    type filter hook {hook} priority {priority}; policy {policy}
    ct state established,related accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    {rule}
  }}
}}
"""
LISTS = """table inet lists {
  set many {
    type ipv4_addr
  }
  chain input {
    type filter hook input priority -5
    limit rate over 1/hour burst 1 packets drop
    ip saddr @many drop
    iifname "nosuch0" drop
  }
}
"""
SHELL = """
import socket, sys, time
listener = socket.create_server(("0.0.0.0", {port}))
print("up", file=sys.stderr, flush=True)
connection, _ = listener.accept()
while connection.send(b"x"):
    time.sleep(0.05)
"""
SESSION = """
import socket, sys
connection = socket.create_connection(("{address}", {port}))
while connection.recv(1):
    print("received", file=sys.stderr, flush=True)
"""
CLOSED = rf"guarded ports: closed without a knock .{GUARDED}/tcp.: test packets are denied on to-client .IPv4, IPv6."
WAYS = r"to-client .IPv4, IPv6., to-stranger .IPv4, IPv6."
ALL_ARRIVE = f"knock ports: test datagrams to all 5 arrive on {WAYS}"
ALL_PASS = f"doors: test packets pass where a door opens on {WAYS}"
FAMILIES = (4, 6)


class Ahead(NamedTuple):
    """What is ahead of the zone, what `doctor` says of it, and the families of packets that it denies."""

    chain: str = ""
    policy: str = ""
    """Attributes and rules of a policy to this host."""
    problems: tuple[str, ...] = ()
    oks: tuple[str, ...] = ()
    denies_knocks: tuple[int, ...] = ()
    denies_doors: tuple[int, ...] = ()


AHEAD = {
    "policy that rejects a knock port": Ahead(
        policy=f'priority="-100" target="CONTINUE"><rule><port port="{SEQUENCE[1]}" protocol="udp"/><reject/></rule>',
        problems=(r"knock ports: test datagrams to 1 of 5 do not arrive .*: denied by policy strict .*--info-policy",),
        oks=(ALL_PASS,),
        denies_knocks=FAMILIES,
    ),
    "policy that drops everything": Ahead(
        policy='priority="-100" target="DROP">',
        problems=(
            r"knock ports: test datagrams to 5 of 5 do not arrive .*: denied by policy strict",
            rf"port {GUARDED}/tcp: a door has no effect .*: denied by policy strict",
        ),
        denies_knocks=FAMILIES,
        denies_doors=FAMILIES,
    ),
    "policy behind the zone": Ahead(policy='priority="100" target="DROP">', oks=(ALL_ARRIVE, ALL_PASS)),
    "second chain that drops a guarded port": Ahead(
        chain=BASE_CHAIN.format(hook="input", priority=20, policy="accept", rule=f"tcp dport {GUARDED} drop"),
        problems=(rf"port {GUARDED}/tcp: a door has no effect .*: denied by table inet mine, chain input, .*drop`",),
        oks=(ALL_ARRIVE,),
        denies_doors=FAMILIES,
    ),
    "second chain with policy drop": Ahead(
        chain=BASE_CHAIN.format(hook="input", priority=-5, policy="drop", rule=f"tcp dport {GUARDED} accept"),
        problems=(r"knock ports: test datagrams to 5 of 5 .*\(IPv4, IPv6\): denied by table inet mine, chain input",),
        oks=(ALL_PASS,),
        denies_knocks=FAMILIES,
    ),
    "chain that drops answers": Ahead(
        chain=BASE_CHAIN.format(hook="output", priority=0, policy="accept", rule=f"tcp sport {GUARDED} drop").replace(
            "ct state established,related accept", ""
        ),
        problems=(rf"port {GUARDED}/tcp: a door has no effect .*: denied by table inet mine, chain input, .*drop`",),
        oks=(ALL_ARRIVE,),
        denies_doors=FAMILIES,
    ),
    "chain ahead of routing for one family": Ahead(
        chain=BASE_CHAIN.format(
            hook="prerouting", priority=-310, policy="accept", rule=f"meta nfproto ipv4 udp dport {SEQUENCE[1]} drop"
        ),
        problems=(r"knock ports: test datagrams to 1 of 5 do not arrive on to-client .IPv4., to-stranger .IPv4.: ",),
        oks=(ALL_PASS, r"knock ports: .* arrive on to-client .IPv6., to-stranger .IPv6."),
        denies_knocks=(4,),
    ),
    "chain of an interface": Ahead(
        chain=BASE_CHAIN.format(
            hook='ingress device "to-client"', priority=0, policy="accept", rule=f"udp dport {SEQUENCE[1]} drop"
        ).replace("ct state established,related accept", ""),
        problems=(
            r"knock ports: test datagrams to 1 of 5 do not arrive on to-client .IPv4, IPv6.: denied by table inet",
        ),
        oks=(ALL_PASS, r"knock ports: .* arrive on to-stranger .IPv4, IPv6."),
        denies_knocks=FAMILIES,
    ),
    "second chain that accepts": Ahead(
        chain=BASE_CHAIN.format(hook="input", priority=-5, policy="accept", rule="accept"), oks=(ALL_ARRIVE, ALL_PASS)
    ),
}


def put_ahead(box: Sandbox, case: Ahead, last: Ahead) -> None:
    """Put it there in place of what the last case has put there."""
    if case.policy != last.policy:
        zones = '<ingress-zone name="ANY"/><egress-zone name="HOST"/>'
        text = f"<policy {case.policy}{zones}</policy>" if case.policy else ""
        file = "/etc/firewalld/policies/strict.xml"
        box.server.run(["tee", file] if text else ["rm", file], text=text)
        box.firewall_cmd("--reload")
    box.server.run(["nft", "-f", "-"], text=f"table inet mine\ndelete table inet mine\n{case.chain}")


def test_denial_ahead_of_the_zone_is_proven(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    conf = write_configuration(tmp_path, open_knock_ports=False)
    rules = [door_rule(client.address4), door_rule(client.address6)]
    box.firewall_cmd("--permanent", *(f"--add-port={port}/udp" for port in SEQUENCE))
    box.firewall_cmd("--permanent", *(f"--add-rich-rule={rule}" for rule in rules))
    stranger = box.hosts["stranger"]
    with box.server.listen(GUARDED):
        last = Ahead()
        for name, case in AHEAD.items():
            put_ahead(box, case, last)
            last = case
            lines = doctor(box, conf)
            for said, grade in (*((said, "PROBLEM") for said in case.problems), (CLOSED, "ok")):
                assert about(lines, said, grade), (name, said, lines)
            for said in (ALL_ARRIVE, ALL_PASS, *case.oks):
                assert bool(about(lines, said, "ok")) is (said in case.oks), (name, said, lines)
            assert len([line for line in lines if line.startswith("PROBLEM")]) == 1 + len(case.problems), (name, lines)
            with box.server.listen(SEQUENCE[1], "udp"):
                for address in (client.server4, client.server6):
                    outcome = client.connect(address, SEQUENCE[1], protocol="udp", timeout=0.4)
                    assert (outcome != "open") is (address.version in case.denies_knocks), (name, address)
                    outcome = client.connect(address, GUARDED, timeout=0.4)
                    assert (outcome != "open") is (address.version in case.denies_doors), (name, address)
            assert stranger.connect(stranger.server4, GUARDED, timeout=0.3) != "open", name


def give_up_table(box: Sandbox) -> None:
    """From 2.2 on, firewalld owns its table, so that no other program changes it; here another one does."""
    box.server.run(["sh", "-c", "echo NftablesTableOwner=no >>/etc/firewalld/firewalld.conf"])
    box.firewalld.restart()


def test_flushed_tables_are_found_and_the_advice_restores_them(
    box: Sandbox, client: ClientHost, tmp_path: Path
) -> None:
    conf = write_configuration(tmp_path, ports_to_controls=[GUARDED, 2223])
    give_up_table(box)
    with box.server.listen(GUARDED):
        box.server.run(["nft", "flush", "ruleset"])
        lines = doctor(box, conf, status=1)
        assert about(lines, "firewalld: runs, but the kernel has none of its rules: .*restart firewalld$", "PROBLEM")
        (line,) = about(lines, "OPEN WITHOUT A KNOCK", "PROBLEM")
        assert f"ports {GUARDED}/tcp, 2223/tcp: OPEN WITHOUT A KNOCK: a test packet from outside arrives on" in line
        assert not about(lines, "guarded ports: closed|doors: ", "ok"), lines
        assert client.connect(client.server4, GUARDED) == "open"

        # The advice. Who has logged in meanwhile stays so, as soon as his server sends something.
        box.server.popen([sys.executable, "-c", SHELL.format(port=2223)]).wait_for("up", 10)
        session = client.popen([sys.executable, "-c", SESSION.format(address=client.server4, port=2223)])
        session.wait_for("received", 10)
        box.firewalld.restart()
        before = session.stderr.text.count("received")
        wait_until(lambda: session.stderr.text.count("received") > before, 10, "the session goes on")
        session.kill()
        assert about(doctor(box, conf), rf"guarded ports: closed without a knock .{GUARDED}/tcp, 2223/tcp.", "ok")
        assert client.connect(client.server4, GUARDED) == "prohibited"


FAULTS = {
    "ipsets/bad.xml": '<ipset type="hash:ip"><entry>1.2.3.0/24</entry><entry>1.2.3.0/25</entry></ipset>',
    "zones/public.xml": '<zone><rule><source ipset="nosuch"/><accept/></rule></zone>',
    "policies/bad.xml": '<policy target="DROP"><ingress-zone name="nosuch"/><egress-zone name="HOST"/></policy>',
}
"""What makes a reload of firewalld fail: each of some releases."""


def fail_reload(box: Sandbox) -> bool:
    """Let a reload of firewalld fail; whether it is in the state FAILED then: later releases refuse such a reload."""
    for name, text in FAULTS.items():
        box.server.run(["tee", f"/etc/firewalld/{name}"], text=text)
        box.server.run(["firewall-cmd", "--reload"], check=False)
        if box.server.run(["firewall-cmd", "--state"], check=False).stderr.strip() == "failed":
            return True
    return False


def test_failed_firewalld_is_never_called_closed(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    """A reload that fails leaves everything open; a start that fails leaves firewalld's stock configuration."""
    conf = write_configuration(tmp_path)
    has_failed = fail_reload(box)
    failed = "firewalld: in the state FAILED: its configuration is not active, and every port may be open"
    with box.server.listen(GUARDED):
        lines = doctor(box, conf, status=1)
        open_lines = about(lines, f"port {GUARDED}/tcp: OPEN WITHOUT A KNOCK", "PROBLEM")
        assert [line.rpartition("; ")[2] for line in open_lines] == ["firewalld is in the state FAILED"] * has_failed
        assert bool(about(lines, f"{failed} without a knock: .*systemctl restart firewalld$", "PROBLEM")) is has_failed
        assert bool(about(lines, "guarded ports: closed", "ok")) is not has_failed, lines
        assert bool(about(lines, "firewalld: running", "ok")) is not has_failed, lines
        assert client.connect(client.server4, GUARDED) == ("open" if has_failed else "prohibited")

        box.firewalld.restart()
        lines = doctor(box, conf, status=1)
        assert about(lines, failed, "PROBLEM"), lines
        assert about(lines, "guarded ports: closed", "ok"), lines
        assert client.connect(client.server4, GUARDED) == "prohibited"

        box.server.run(["rm", "-f", *(f"/etc/firewalld/{name}" for name in FAULTS)])
        box.firewalld.restart()  # the advice
        assert about(doctor(box, conf), "firewalld: running", "ok")


def test_each_interface_is_tested(box: Sandbox, tmp_path: Path) -> None:
    """A rule that no setting of firewalld shows opens the port by one interface."""
    conf = write_configuration(tmp_path)
    give_up_table(box)
    rule = f"insert rule inet firewalld filter_IN_public_pre iif to-stranger tcp dport {GUARDED} accept\n"
    box.server.run(["nft", "-f", "-"], text=rule)
    lines = doctor(box, conf, status=1)
    (line,) = about(lines, "OPEN WITHOUT A KNOCK", "PROBLEM")
    assert "on to-stranger (IPv4, IPv6); the rule that accepts it: table inet firewalld, chain " in line
    assert not about(lines, "guarded ports: closed", "ok")


def test_large_set_with_limits_and_owner_is_copied(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    conf = write_configuration(tmp_path)
    box.server.run(
        ["nft", "-f", "-"],
        text=LISTS,
    )
    elements = [str(ip_address(0x0B000000 + number)) for number in range(100_000)]
    for first in range(0, len(elements), 5000):
        chunk = ", ".join(elements[first : first + 5000])
        box.server.run(["nft", "-f", "-"], text=f"add element inet lists many {{ {chunk} }}\n")
    assert about(doctor(box, conf), CLOSED, "ok")


def test_doctor_says_plainly_what_it_could_not_verify(box: Sandbox, tmp_path: Path) -> None:
    conf = write_configuration(tmp_path)
    unable = "firewall: not verified with test packets that guarded ports are closed and knocks arrive: "
    for options, why in (
        (("--bounding-set=-net_admin", "--inh-caps=-net_admin"), "run as root: sudo port-knocking-doors doctor"),
        (("--bounding-set=-sys_admin", "--inh-caps=-sys_admin"), "cannot make a network namespace"),
    ):
        argv = ["setpriv", *options, sys.executable, "-m", "port_knocking_doors", "doctor", "--conf", str(conf)]
        lines = box.server.run(argv, check=False, timeout=60).stdout.splitlines()
        assert about(lines, f"{unable}.*{why}", "warning"), lines
        assert not about(lines, "guarded ports|doors: |knock ports: test", "ok"), lines
