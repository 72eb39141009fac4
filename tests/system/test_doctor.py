"""`doctor` against a real firewalld: what it says of a port is what becomes of a connection to it."""

import re
import sys
from pathlib import Path

from port_knocking_doors.sandbox import ClientHost, Sandbox
from tests.helpers.running import GUARDED, SEQUENCE, begin_daemon, knock, start_daemon, write_configuration
from tests.helpers.waiting import wait_until

WITHIN = 60.0


def doctor(box: Sandbox, conf: Path, *options: str, status: int | None = None) -> list[str]:
    """Its findings; with `status`, the exit status that it must have."""
    argv = [sys.executable, "-m", "port_knocking_doors", "doctor", "--conf", str(conf), *options]
    done = box.server.run(argv, check=False, timeout=WITHIN)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    problems = [line for line in lines if line.startswith("PROBLEM ")]
    assert done.returncode == (1 if problems else 0), lines
    if status is not None:
        assert done.returncode == status, lines
    assert not any(str(port) in done.stdout for port in SEQUENCE)
    return lines


def about(lines: list[str], pattern: str, grade: str) -> list[str]:
    """Those of this grade that match."""
    return [line for line in lines if line.startswith(grade) and re.search(pattern, line)]


def is_open(host: ClientHost, port: int) -> bool:
    """Whether the firewall blocks a connection; nothing listens there."""
    outcome = host.connect(host.server4, port, timeout=1.5)
    assert outcome in ("refused", "prohibited", "timeout")
    return outcome == "refused"


ACCEPT = "port port={} protocol=tcp accept"
REJECT = "port port={} protocol=tcp drop"


def test_open_port_of_zone_is_found_in_each_form(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    stranger = box.hosts["stranger"]
    mine, its = f"family=ipv4 source address={client.address4}", f"family=ipv4 source not address={client.address4}"
    box.firewall_cmd("--add-service=freeipa-4")  # which includes kerberos
    box.firewall_cmd(*(f"--add-port={ports}" for ports in ("3002/tcp", "3003-3004/tcp", "3007/tcp", "3009/udp")))
    rules = [
        "rule " + ACCEPT.format(3010),
        f"rule {mine} " + ACCEPT.format(3005),
        f"rule {its} " + ACCEPT.format(3006),
        "rule " + REJECT.format(3007),
        "rule priority=-5 " + ACCEPT.format(3011),
        "rule " + REJECT.format(3011),
        "rule priority=32000 " + ACCEPT.format(3012),
        "rule priority=31999 " + REJECT.format(3012),
    ]
    box.firewall_cmd(*(f"--add-rich-rule={rule}" for rule in rules))
    open_to_all = {22: "service ssh", 88: "service freeipa-4", 3002: "port 3002/tcp", 3003: "port 3003-3004/tcp"}
    open_to_all |= {3004: "port 3003-3004/tcp", 3010: "rich rule", 3011: 'rich rule `rule priority="-5"'}
    some = {3005: client, 3006: stranger}
    open_to_none = [3001, 3007, 3008, 3009, 3012]
    denied = [3007, 3011]
    guarded = [*open_to_all, *some, *open_to_none]
    lines = doctor(box, write_configuration(tmp_path, ports_to_controls=guarded), status=1)

    for port in guarded:
        # Being dropped takes its time: once is enough.
        who = [host for host in ((client,) if port in open_to_none else (client, stranger)) if is_open(host, port)]
        assert who == ([client, stranger] if port in open_to_all else [some[port]] if port in some else []), port
        loud = about(lines, rf"^\S+ +zone public: port {port}/tcp is OPEN WITHOUT A KNOCK", "PROBLEM")
        assert len(loud) == (port in open_to_all), lines
        if port in open_to_all:
            assert open_to_all[port] in loud[0]
            assert re.search("firewall-cmd --(zone=public '?--remove-|info-zone=public)", loud[0])
        assert len(about(lines, rf"port {port}/tcp is open to some", "warning")) == (port in some), lines
        assert len(about(lines, rf"port {port}/tcp is denied", "PROBLEM")) == (port in denied), lines


def test_zones_and_policies_that_accept_everything_are_found(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    conf = write_configuration(tmp_path)
    box.firewall_cmd("--permanent", "--new-policy=in")
    box.firewall_cmd("--permanent", "--policy=in", "--add-ingress-zone=work")
    box.firewall_cmd("--permanent", "--policy=in", "--add-egress-zone=HOST")
    box.firewall_cmd("--permanent", "--policy=in", f"--add-port={GUARDED}/tcp")
    box.firewall_cmd("--reload")
    box.firewall_cmd("--zone=external", "--add-protocol=tcp")
    box.firewall_cmd("--zone=dmz", "--add-source-port=1-65535/tcp")
    stranger = box.hosts["stranger"]
    target, protocol = "zone trusted: .*: the target ACCEPT", "zone external: .*: protocol tcp"
    source_port, policy = "zone dmz: .*: source port 1-65535/tcp", f"policy in: .*: port {GUARDED}/tcp"
    for here, there in (
        (("public", ""), ("trusted", target)),
        (("external", protocol), ("dmz", source_port)),
        (("work", policy), ("home", "")),
    ):
        for host, (zone, _) in ((client, here), (stranger, there)):
            box.firewall_cmd(f"--zone={zone}", f"--change-interface=to-{host.name}")
        lines = doctor(box, conf)
        found = about(lines, "OPEN WITHOUT A KNOCK", "PROBLEM")
        for host, (zone, what) in ((client, here), (stranger, there)):
            assert is_open(host, GUARDED) is bool(what), zone
            assert not what or len([line for line in found if re.search(what, line)]) == 1, lines
            assert about(lines, f"zone {zone}: interfaces to-{host.name}", "ok"), lines
        assert len(found) == sum(bool(what) for _, what in (here, there)), lines

    # A network that is trusted is a choice, and still worth a line.
    box.firewall_cmd("--zone=trusted", f"--add-source={stranger.address4}")
    lines = doctor(box, conf)
    assert about(lines, "zone trusted: .*OPEN WITHOUT A KNOCK", "warning"), lines
    assert is_open(stranger, GUARDED)


def test_daemon_logs_at_start_which_ports_need_no_knock(box: Sandbox, tmp_path: Path) -> None:
    box.firewall_cmd(f"--add-port={GUARDED}/tcp")
    box.firewall_cmd("--add-rich-rule=rule family=ipv4 source address=10.0.9.9 accept")
    daemon = start_daemon(box, tmp_path, ports_to_controls=[GUARDED, 2223])
    daemon.wait_for(f"WARNING zone public: port {GUARDED}/tcp is OPEN WITHOUT A KNOCK: port {GUARDED}/tcp lets it", 10)
    box.firewall_cmd("--add-port=2223/tcp")
    daemon.send_signal(1)  # SIGHUP
    daemon.wait_for("WARNING zone public: port 2223/tcp is OPEN WITHOUT A KNOCK", 10)
    assert len([line for line in daemon.stderr.lines if "rich rule" in line]) == 0


def test_healthy_daemon_has_no_problem_and_knocks_are_shown(box: Sandbox, client: ClientHost, tmp_path: Path) -> None:
    conf = write_configuration(tmp_path)
    assert about(doctor(box, conf, status=1), "no daemon is running; start it", "PROBLEM")
    daemon = begin_daemon(box, conf)
    daemon.wait_for(r"\bready\b", 20)
    with box.server.listen(GUARDED):
        lines = doctor(box, conf, status=0)
    for said in (
        r"daemon: process \d+ runs",
        "firewalld: this user may change it",
        f"guarded ports: closed without a knock .{GUARDED}/tcp",
        "knock ports: test datagrams to all 5 arrive on to-client .IPv4, IPv6., to-stranger .IPv4, IPv6.$",
        "doors: test packets pass where a door opens on to-client .IPv4, IPv6., to-stranger .IPv4, IPv6.",
        "redirections: no container",
        "services: a service listens on every guarded port",
        f"interfaces: .*to-client .{client.server4}",
    ):
        assert about(lines, said, "ok"), lines
    assert not about(lines, "", "warning"), lines

    argv = [sys.executable, "-m", "port_knocking_doors", "doctor", "--listen", "60", "--priority", "31313"]
    listening = box.server.popen([*argv, "--conf", str(conf)])
    wait_until(lambda: "Listening for 60 s" in listening.stdout.text, WITHIN, "doctor listens")
    stranger = box.hosts["stranger"]

    def reported() -> bool:
        # The daemon reports from the moment that the watch has begun, which cannot be seen from here.
        knock(client, client.server4)
        knock(stranger, stranger.server4, [SEQUENCE[0], SEQUENCE[2]])
        return all(
            re.search(said, listening.stdout.text)
            for said in (
                rf"{client.address4}: knock advanced to step 4 \(main\)",
                rf"{client.address4}: knock complete \(main\)",
                rf"{client.address4}: (opened|prolonged) {GUARDED}/tcp",
                rf"{stranger.address4}: wrong knock, address ignored for 5 s",
                rf"{stranger.address4}: knock ignored",
            )
        )

    wait_until(reported, 30, lambda: listening.stdout.text, every=0.3)
    daemon.send_signal(15)
    assert listening.wait(30) == 1
    assert listening.stderr.text.count("\n") == 1
    assert "the daemon stopped" in listening.stderr.text
    assert not any(str(port) in listening.stdout.text for port in SEQUENCE)
    assert not any("knock advanced" in line for line in daemon.stderr.lines)


def test_obstacle_is_found(box: Sandbox, tmp_path: Path) -> None:
    """Many at once, since they are independent."""
    steps = (
        '\n[[sequence]]\nname = "ssh"\nsteps = ["tcp:23001", "tcp:23009", "tcp:23004"]\nopen = [2226]\nduration = 5\n'
    )
    guarded = [GUARDED, 2223, 2224, 2225, 2227]
    conf = write_configuration(tmp_path, ports_to_controls=guarded, open_knock_ports=False, zone="home")
    conf.write_text(conf.read_text() + steps)
    proxy = tmp_path / "docker-proxy"
    proxy.write_text(
        f"#!{sys.executable} -IS\nimport sys, time\nprint('up', file=sys.stderr, flush=True)\ntime.sleep(600)\n"
    )
    proxy.chmod(0o755)
    container = ["-proto", "tcp", "-host-ip", "0.0.0.0", "-host-port", "2225", "-container-port", "80"]
    box.server.popen([str(proxy), *container]).wait_for("up", 10)
    # What Docker's `iptables` makes of `-p 2227:80`.
    docker = (
        'table ip nat {\nchain DOCKER {\niifname != "docker0" meta l4proto tcp tcp dport 2227 counter '
        "dnat to 172.17.0.2:80\n}\nchain PREROUTING {\ntype nat hook prerouting priority dstnat\n"
        "fib daddr type local counter jump DOCKER\n}\n}\n"
    )
    box.server.run(["nft", "-f", "-"], text=docker)
    ruleset = (
        "table ip theirs {\nchain pre {\ntype nat hook prerouting priority -100\n"
        "tcp dport 2223 dnat to 10.0.1.2:80\n}\n}\n"
    )
    box.server.run(["nft", "-f", "-"], text=ruleset)
    box.firewall_cmd("--add-forward-port=port=2224:proto=tcp:toport=80")
    box.firewall_cmd("--panic-on")
    loopback = f"s = socket.create_server(('127.0.0.1', {GUARDED})); print('up', file=sys.stderr); time.sleep(600)"
    box.server.popen([sys.executable, "-c", f"import socket, sys, time; {loopback}"]).wait_for("up", 10)
    with box.server.listen(SEQUENCE[3], "udp"):
        lines = doctor(box, conf, status=1)
    for said in (
        "firewalld: panic mode is on",
        "zone home: doors open in this zone, but no packet reaches it",
        "zone home: 5 of 5 knock ports are not open: set open_knock_ports",
        r"port 2223/tcp: a rule redirects its packets past the zone",
        r"port 2224/tcp: a rule redirects its packets past the zone",
        r"port 2227/tcp: a rule redirects its packets past the zone",
        r"port 2225/tcp: a container publishes it .docker-proxy",
        "knock ports: port number 4 of the opening sequence is in use by another program",
    ):
        assert about(lines, said, "PROBLEM"), (said, lines)
    assert about(lines, f"port {GUARDED}/tcp .*loopback only", "warning"), lines
    assert about(lines, r"port 2226/tcp \(sequence ssh\): nothing listens there", "warning"), lines
    assert about(lines, "sniffing: permitted", "ok"), lines

    unable = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", sys.executable, "-m", "port_knocking_doors"]
    done = box.server.run(
        [*unable, "--interface", "nosuch0", "doctor", "--conf", str(conf)], check=False, timeout=WITHIN
    )
    lines = done.stdout.splitlines()
    assert about(lines, "sniffing: permission denied", "PROBLEM"), lines
    assert about(lines, "interface nosuch0: not found", "PROBLEM"), lines


def test_missing_firewalld_is_found(box: Sandbox, tmp_path: Path) -> None:
    conf = write_configuration(tmp_path)
    box.firewalld.freeze()
    assert about(doctor(box, conf, status=1), "firewalld has not answered for 5 s: systemctl restart", "PROBLEM")
    box.firewalld.stop()
    assert about(doctor(box, conf, status=1), "firewalld is not running: systemctl enable", "PROBLEM")
    box.bus.stop()
    assert about(doctor(box, conf, status=1), "firewalld: there is no D-Bus system bus", "PROBLEM")

    wrong = tmp_path / "wrong.toml"
    wrong.write_text("opening_sequenze = [1]\n")
    assert about(doctor(box, wrong, status=1), r"configuration: .*wrong.toml:1: ", "PROBLEM")
