"""knockd's doors as tables of our own file: ports, notes on differences, and that our own reader accepts them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from port_knocking_doors.config import knockd, knockd_to_toml, native
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import ALL_FLAGS, Access, CommandOpening, Flags, Port, Protocol, Sequence, Step

REQUIRED = "ports_to_controls = [22]\nopening_sequence = [1, 5, 2, 4, 3]\n"
STEPS = "Sequence = 7001,8002:udp,7503"
ACCEPT = "/sbin/iptables -{} INPUT -s %IP% -p tcp --dport 22 -j ACCEPT"
RICH = 'rule family="ipv4" source address="%IP%" port port="443" protocol="tcp" accept'


def toml(*lines: str) -> str:
    return knockd_to_toml.as_toml(knockd.parse("\n".join(lines), "F").sequences)


def read_back(text: str) -> tuple[Sequence, ...]:
    return native.parse(REQUIRED + text, "T").sequences


def only(*lines: str) -> Sequence:
    (one,) = read_back(toml("[ssh]", STEPS, *lines))
    return one


def tcp(port: int, flags: int = Flags.SYN) -> Step:
    return Step(Protocol.TCP, port, flags)


def test_commands_that_open_and_close_become_ports() -> None:
    lines = ["Seq_Timeout = 15", "TCPFlags = syn", f"Start_Command = {ACCEPT.format('A')}", "Cmd_Timeout = 7"]
    text = toml("[ssh]", STEPS, *lines, f"Stop_Command = {ACCEPT.format('D')}")
    assert read_back(text) == (
        Sequence(
            "ssh",
            (tcp(7001), Step(Protocol.UDP, 8002), tcp(7503)),
            access=Access.of("ssh", (Port(22),), 7),
            timeout=15,
            traps=512,
        ),
    )
    assert "# knockd takes TCP packets with SYN, whatever else is set; here they are with SYN and nothing else." in text
    assert f"# Instead of: {ACCEPT.format('A')}" in text


SSH, WEB = (Port(22),), (Port(80), Port(443))
BOTH = (Port(22), Port(22, Protocol.UDP))
FOR_EVER = "The command opens for ever. Here the door closes after 3600 s"
UFW = "ufw {} from %IP% to any port 22 proto tcp"
NFT = "nft {} rule inet filter input ip saddr %IP% tcp dport 22 accept"

UNESCAPED = '"rule family="ipv4" source address="%IP%" service name="dns" accept"'

DOORS = {
    # start and stop command, ports, seconds, what a note says
    "inserted": (ACCEPT.format("I"), ACCEPT.format("D"), SSH, 10, "Instead of: "),
    "at a place, in another order": (
        "iptables -I INPUT 1 -p udp -s %IP%/32 --dport 1194 -j ACCEPT",
        "iptables -D INPUT -s %IP% -p udp --dport 1194 -j ACCEPT",
        (Port(1194, Protocol.UDP),),
        10,
        "",
    ),
    "several ports, new connections": (
        "iptables -w -A INPUT -s %IP% -p tcp -m multiport --dports 80,443 -m state --state NEW -j ACCEPT",
        "iptables -w -D INPUT -s %IP% -p tcp -m multiport --dports 80,443 -m state --state NEW -j ACCEPT",
        WEB,
        10,
        "",
    ),
    "a range": (
        "iptables -A INPUT -s %IP% -p tcp --dport 6000:6002 -j ACCEPT",
        "iptables -D INPUT -s %IP% -p tcp --dport 6000:6002 -j ACCEPT",
        (Port(6000), Port(6001), Port(6002)),
        10,
        "",
    ),
    "start by number and stop by name": (
        ACCEPT.format("I"),
        ACCEPT.format("D").replace("22", "ssh"),
        SSH,
        10,
        "",
    ),
    "long options": (
        "iptables --append INPUT --source=%IP% --protocol=tcp --destination-port=ssh --jump ACCEPT",
        "iptables --delete INPUT --source=%IP% --protocol=tcp --destination-port=ssh --jump ACCEPT",
        SSH,
        10,
        "",
    ),
    "for ever": (ACCEPT.format("A"), "", SSH, 3600, FOR_EVER),
    "stop by the rule's number": (ACCEPT.format("I"), "iptables -D INPUT 1", SSH, 10, ""),
    "an interface": (
        ACCEPT.format("A") + " -i eth1",
        ACCEPT.format("D") + " -i eth1",
        SSH,
        10,
        "The command's rule is for packets on eth1 only.",
    ),
    "a comment": (
        ACCEPT.format("A") + " -m comment --comment 'for Ann'",
        ACCEPT.format("D") + " -m comment --comment 'for Ann'",
        SSH,
        10,
        "The command's comment: for Ann",
    ),
    "a comment of the shell": (ACCEPT.format("A") + " # for Ann", "", SSH, 3600, "The command's comment: for Ann"),
    "a chain": (
        ACCEPT.format("A").replace("INPUT", "KNOCK"),
        ACCEPT.format("D").replace("INPUT", "KNOCK"),
        SSH,
        10,
        "The command's rule is in chain KNOCK.",
    ),
    "a chain that is flushed": (ACCEPT.format("A").replace("INPUT", "KNOCK"), "iptables -F KNOCK", SSH, 10, ""),
    "knockd's helper": ("knock_add -i -c INPUT -p tcp -d 443 -f %IP%", "", (Port(443),), 3600, FOR_EVER),
    "unless it exists": (f"{ACCEPT.format('C')} || {ACCEPT.format('A')}", ACCEPT.format("D"), SSH, 10, ""),
    "removed first": (f"{ACCEPT.format('D')}; {ACCEPT.format('A')}", ACCEPT.format("D"), SSH, 10, ""),
    "closed by a sleep": (f"{ACCEPT.format('A')}; sleep 30; {ACCEPT.format('D')}", "", SSH, 30, ""),
    "closed by a sleep in minutes, after something else": (
        f"{ACCEPT.format('A')} && sleep 1.5m && sleep 10s; {ACCEPT.format('D')} || true",
        "",
        SSH,
        100,
        "",
    ),
    "firewalld reloaded by systemd": (f"{ACCEPT.format('A')} && systemctl reload firewalld", "", SSH, 3600, FOR_EVER),
    "whatever the firewall says": (f"{ACCEPT.format('A')} || true", f"{ACCEPT.format('D')} || :", SSH, 10, ""),
    "IPv6 only": (
        ACCEPT.format("A").replace("ip", "ip6"),
        ACCEPT.format("D").replace("ip", "ip6"),
        SSH,
        10,
        "The command is for IPv6 addresses only; here the door opens for IPv4 addresses, too.",
    ),
    "saved": (f"{ACCEPT.format('A')} && netfilter-persistent save", "", SSH, 3600, "Left out: netfilter-persistent"),
    "answers let out": (
        f"{ACCEPT.format('A')}; iptables -A OUTPUT -d %IP% -p tcp --sport 22 -j ACCEPT",
        f"{ACCEPT.format('D')}; iptables -D OUTPUT -d %IP% -p tcp --sport 22 -j ACCEPT",
        SSH,
        10,
        "Left out: the rule in chain OUTPUT.",
    ),
    "both families by one line": (
        f"{ACCEPT.format('A')}; {ACCEPT.format('A').replace('iptables', 'ip6tables')}",
        f"{ACCEPT.format('D')}; {ACCEPT.format('D').replace('iptables', 'ip6tables')}",
        SSH,
        10,
        "",
    ),
    "a shell's line": (f'sh -c "{ACCEPT.format("A")}"', f"sudo /bin/bash -c '{ACCEPT.format('D')}'", SSH, 10, ""),
    "a question that is answered": (UFW.format("allow"), f"echo y | {UFW.format('delete allow')}", SSH, 10, ""),
    "a question that is always answered": (UFW.format("allow"), f"yes | {UFW.format('delete allow')}", SSH, 10, ""),
    "two ports by two commands": (
        f"{ACCEPT.format('A')}; {ACCEPT.format('A').replace('22', '80')} >/dev/null 2>&1",
        f"{ACCEPT.format('D').replace('22', '80')}; {ACCEPT.format('D')}",
        (Port(22), Port(80)),
        10,
        "",
    ),
    "firewalld": (
        f"firewall-cmd --add-rich-rule='{RICH}'",
        f"/usr/bin/firewall-cmd --remove-rich-rule '{RICH}'",
        (Port(443),),
        10,
        "",
    ),
    "firewalld's timeout": (f"firewall-cmd --timeout=5m --add-rich-rule='{RICH}'", "", (Port(443),), 300, ""),
    "firewalld, the protocol first": (
        'firewall-cmd --add-rich-rule=\'rule source address="%IP%" port protocol="udp" port="53" accept\'',
        "",
        (Port(53, Protocol.UDP),),
        3600,
        FOR_EVER,
    ),
    "firewalld's service, quotes within quotes": (
        f"firewall-cmd --zone=internal --add-rich-rule={UNESCAPED}",
        f"firewall-cmd --zone=internal --remove-rich-rule={UNESCAPED}",
        (Port(53), Port(53, Protocol.UDP)),
        10,
        "The command names zone internal",
    ),
    "firewalld, permanent": (
        f"firewall-cmd --permanent --add-rich-rule='{RICH}' && firewall-cmd --reload",
        f"firewall-cmd --permanent --remove-rich-rule='{RICH}' && firewall-cmd --reload",
        (Port(443),),
        10,
        "The command changes the permanent configuration",
    ),
    "firewalld, permanent and not": (
        f"firewall-cmd --permanent --add-rich-rule='{RICH}'",
        f"firewall-cmd --remove-rich-rule='{RICH}'",
        (Port(443),),
        10,
        "",
    ),
    "a direct rule of firewalld": (
        "firewall-cmd --direct --add-rule ipv4 filter INPUT 0 -s %IP% -p tcp --dport 22 -j ACCEPT",
        "firewall-cmd --direct --remove-rule ipv4 filter INPUT 0 -s %IP% -p tcp --dport 22 -j ACCEPT",
        SSH,
        10,
        "",
    ),
    "ufw": (UFW.format("allow"), UFW.format("delete allow"), SSH, 10, ""),
    "ufw, both protocols": (
        "sudo ufw insert 1 allow from %IP% to any port 22 comment 'for Ann'",
        "ufw --force delete allow from %IP% to any port 22",
        BOTH,
        10,
        "The command's comment: for Ann",
    ),
    "ufw, several ports": (
        "ufw allow proto tcp from %IP% to any port 80,443",
        "ufw delete allow proto tcp from %IP% to any port 80,443",
        WEB,
        10,
        "",
    ),
    "ufw, an application": ("ufw allow from %IP% to any app OpenSSH", "", SSH, 3600, FOR_EVER),
    "nft": (
        NFT.format("add"),
        "nft delete rule inet filter input handle $(nft -a list | grep %IP% | cut -d' ' -f9)",
        SSH,
        10,
        "The command's rule is in chain inet filter input.",
    ),
    "nft, several ports": (
        'nft insert rule ip filter in tcp dport { 80, https } ct state new counter ip saddr %IP% accept comment "x"',
        "",
        WEB,
        3600,
        "The command's comment: x",
    ),
    "nft, an address in braces, a counter with its values": (
        "doas nft add rule inet filter input ip saddr { %IP% } tcp dport 22 counter packets 0 bytes 0 accept",
        "",
        SSH,
        3600,
        "",
    ),
    "nft, an element with a port": (
        "nft add element inet t s { %IP% . 22 timeout 1h30m }",
        "",
        SSH,
        5400,
        "in set inet t s",
    ),
    "ipset, an entry with a port": (
        "ipset add s %IP%,tcp:22 timeout 60",
        "ipset del s %IP%,tcp:22",
        SSH,
        10,
        "in set s",
    ),
}


@pytest.mark.parametrize(("start", "stop", "opens", "duration", "note"), DOORS.values(), ids=DOORS)
def test_commands_that_open_for_the_knocker_become_a_door(
    start: str, stop: str, opens: tuple[Port, ...], duration: float, note: str
) -> None:
    text = toml("[ssh]", STEPS, f"Command = {start}", *([f"Stop_Command = {stop}"] if stop else []))
    (one,) = read_back(text)
    assert (one.access.ports, one.access.duration, one.access.command) == (opens, duration, None)
    assert note in text
    assert (FOR_EVER in text) == (duration == 3600)


EVERYONE = "This opens to every address, and a door opens to the knocker only. For one, write instead:\n# open = [22]\n"
EVERY_PORT = "This opens every port to the knocker. For a door, write instead, with all ports that are needed:\n# open"
ELSEWHERE = "Other rules of the firewall decide which ports this opens. For a door, write them instead:\n# open = [22]"
NO_UNDOING = "The stop command does not undo the start command"

COMMANDS = {
    # start and stop command, what a note says
    "all ports": ("iptables -A INPUT -s %IP% -j ACCEPT", "iptables -D INPUT -s %IP% -j ACCEPT", EVERY_PORT),
    "all TCP ports": ("iptables -A INPUT -s %IP% -p tcp -j ACCEPT", "", EVERY_PORT),
    "all ports by ufw": ("ufw allow from %IP%", "", ""),
    "all ports to ufw's any": ("ufw allow from %IP% to any", "ufw delete allow from %IP% to any", EVERY_PORT),
    "all ports by firewalld": (
        "firewall-cmd --zone=trusted --add-source=%IP%",
        "firewall-cmd --zone=trusted --remove-source=%IP%",
        EVERY_PORT,
    ),
    "all ports by nft": ("nft add rule ip filter input ip saddr %IP% accept", "", EVERY_PORT),
    "for all": ("iptables -A INPUT -p tcp --dport 22 -j ACCEPT", "", EVERYONE),
    "for all by ufw": ("ufw allow 22/tcp", "ufw delete allow 22/tcp", EVERYONE),
    "for all by firewalld": ("firewall-cmd --add-service=ssh", "firewall-cmd --remove-service=ssh", EVERYONE),
    "for all by firewalld's port": ("firewall-cmd --add-port=22/tcp", "firewall-cmd --remove-port=22/tcp", EVERYONE),
    "for all by a rich rule": ("firewall-cmd --add-rich-rule='rule service name=ssh accept'", "", EVERYONE),
    "for all by nft": ("nft add rule inet filter input tcp dport 22 accept", "", EVERYONE),
    "a chain without ports": (
        "iptables -A KNOCK -s %IP% -j ACCEPT",
        "iptables -D KNOCK -s %IP% -j ACCEPT",
        ELSEWHERE,
    ),
    "a set": ("nft add element inet t s { %IP% timeout 1h }", "", ELSEWHERE),
    "a set of ipset": ("ipset add s %IP%", "ipset del s %IP%", ELSEWHERE),
    "another port": (ACCEPT.format("A"), ACCEPT.format("D").replace("22", "23"), NO_UNDOING),
    "the stop closes more": (
        ACCEPT.format("A"),
        f"{ACCEPT.format('D')}; {ACCEPT.format('D').replace('22', '80')}",
        NO_UNDOING,
    ),
    "the stop is unknown": (ACCEPT.format("A"), "/root/close %IP%", NO_UNDOING),
    "another family": (ACCEPT.format("A"), ACCEPT.format("D").replace("iptables", "ip6tables"), NO_UNDOING),
    "the other way round": (ACCEPT.format("D"), ACCEPT.format("A"), ""),
    "and a rule for all": (f"{ACCEPT.format('A')}; iptables -A INPUT -p tcp --dport 22 -j DROP", "", ""),
    "if something fails": (f"{ACCEPT.format('A')} || logger failed", ACCEPT.format("D"), ""),
    "all other addresses": (ACCEPT.format("A").replace("-s", "! -s"), ACCEPT.format("D").replace("-s", "! -s"), ""),
    "forwarded packets": (
        ACCEPT.format("A").replace("INPUT", "FORWARD"),
        ACCEPT.format("D").replace("INPUT", "FORWARD"),
        "",
    ),
    "a service that is unknown": (ACCEPT.format("A").replace("22", "gnu"), ACCEPT.format("D").replace("22", "gnu"), ""),
    "another address": (ACCEPT.format("A").replace("%IP%", "1.2.3.4"), ACCEPT.format("D"), ""),
    "one of this host's addresses": (ACCEPT.format("A") + " -d 192.0.2.1", "", ""),
    "not so often": (ACCEPT.format("A") + " -m limit --limit 3/minute", ACCEPT.format("D"), ""),
    "denies": (ACCEPT.format("A").replace("ACCEPT", "DROP"), ACCEPT.format("D"), ""),
    "ufw denies": ("ufw deny from %IP% to any port 22", "", ""),
    "ufw limits": ("ufw limit from %IP% to any port 22", "", ""),
    "a rich rule that limits": (
        "firewall-cmd --add-rich-rule='rule source address=%IP% service name=ssh accept limit value=1/m'",
        "",
        "",
    ),
    "a rich rule that drops": ("firewall-cmd --add-rich-rule='rule source address=%IP% drop'", "", ""),
    "a rich rule for all others": (
        "firewall-cmd --add-rich-rule='rule source NOT address=%IP% service name=ssh accept'",
        "",
        "",
    ),
    "nft limits": ("nft add rule ip filter input ip saddr %IP% tcp dport 22 limit rate 1/second accept", "", ""),
    "more ports than a door has": (
        "iptables -A INPUT -s %IP% -p udp --dport 60000:61000 -j ACCEPT",
        "",
        "These are more ports than the 64 of a door.",
    ),
    "no protocol": (
        "iptables -A INPUT -s %IP% --dport 22 -j ACCEPT",
        "",
        "iptables refuses --dport without -p tcp or -p udp ahead of it. For a door, write instead:\n# open = [22]",
    ),
    "the protocol behind the port": (
        "iptables -A INPUT -s %IP% --dport 22 -p tcp -j ACCEPT",
        "",
        "iptables refuses --dport without -p tcp or -p udp ahead of it. For a door, write instead:\n# open = [22]",
    ),
    "an en dash": (ACCEPT.format("A").replace("--dport", "\u2013dport"), "", ""),
    "a condition": (f"[ -f /run/x ] && {ACCEPT.format('A')}", ACCEPT.format("D"), ""),
    "a condition far ahead": (f"grep -q %IP% /x && logger y && {ACCEPT.format('A')}", ACCEPT.format("D"), ""),
    "an exit ahead": (f"exit; {ACCEPT.format('A')}", ACCEPT.format("D"), ""),
    "closed at once": (f"{ACCEPT.format('A')}; {ACCEPT.format('D')}", "", "The stop command does not undo"),
    "closed by at": (f'{ACCEPT.format("A")}; echo "{ACCEPT.format("D")}" | at now + 1 minute', "", ""),
    "closed by a script of at": (f"{ACCEPT.format('A')}; echo /root/close | at now + 1 minute", "", ""),
    "closed by another shell": (f"{ACCEPT.format('A')}; nohup sh -c 'sleep 3; {ACCEPT.format('D')}' &", "", ""),
    "closed while it sleeps": (f"{ACCEPT.format('A')}; sleep 9 & {ACCEPT.format('D')}", "", ""),
    "closed after something else": (f"{ACCEPT.format('A')}; sleep 9; logger x; {ACCEPT.format('D')}", "", ""),
    "a sleep of unknown length": (f"{ACCEPT.format('A')}; sleep infinity; {ACCEPT.format('D')}", "", ""),
    "on another host, too": (
        f"{ACCEPT.format('A')}; ssh router {ACCEPT.format('A')}",
        f"{ACCEPT.format('D')}; ssh router {ACCEPT.format('D')}",
        "",
    ),
    "no ports but ICMP": (ACCEPT.format("A").replace("tcp --dport 22", "icmp"), "", ""),
    "forwarded packets of OpenWrt": (ACCEPT.format("A").replace("INPUT", "forwarding_rule"), "", ""),
    "forwarded packets by nft": (NFT.format("add").replace("input", "forward"), "", ""),
    "a table of nft that accepts nothing": (NFT.format("add").replace("inet filter input", "ip nat a"), "", ""),
    "a family of nft that accepts nothing": (NFT.format("add").replace("inet", "netdev"), "", ""),
    "a set that denies": ("nft add element inet t blacklist { %IP% . 22 }", "", ""),
    "a set of ipset that denies": ("ipset add blocked %IP%,tcp:22", "", ""),
    "a zone that denies": ("firewall-cmd --zone=drop --add-source=%IP%", "", ""),
    "another zone": ("firewall-cmd --zone=home --add-source=%IP%", "", ELSEWHERE),
    "no shell's text": ("echo '", "true", ""),
    "a script": ("/root/open %IP%", "/root/close %IP%", ""),
    "a loop": (f"for p in 1 2; do {ACCEPT.format('A')}; done", "", ""),
    "a pipe": (f"{ACCEPT.format('A')} | logger", "", ""),
    "a computed port": (ACCEPT.format("A").replace("22", "$(cat /etc/port)"), "", ""),
}


@pytest.mark.parametrize(("start", "stop", "note"), COMMANDS.values(), ids=COMMANDS)
def test_commands_that_may_open_anything_else_stay_commands(start: str, stop: str, note: str) -> None:
    text = toml("[ssh]", STEPS, f"Command = {start}", *([f"Stop_Command = {stop}"] if stop else []))
    (one,) = read_back(text)
    assert one.access.ports == ()
    assert one.access.command == (CommandOpening(start, stop, 10) if stop else CommandOpening(start))
    assert note in text


def test_rest_of_a_line_runs_beside_the_door() -> None:
    one = only(
        f"Command = {ACCEPT.format('A')}; logger a & logger b", f"Stop_Command = {ACCEPT.format('D')} && logger c"
    )
    assert one.access == Access.of("ssh", SSH, 10, CommandOpening("logger a & logger b", "logger c", 10))
    one = only(f"Command = {ACCEPT.format('A')}", f"Stop_Command = {ACCEPT.format('D')}; logger c")
    assert one.access == Access.of("ssh", SSH, 10, CommandOpening("true", "logger c", 10))


# Pairs of sequences


def pair(opening: str, closing: str, *more: str) -> str:
    lines = [
        "[openSSH]",
        STEPS,
        f"Command = {opening}",
        "[closeSSH]",
        "Sequence = 9001,8002:udp",
        f"Command = {closing}",
    ]
    return toml(*lines, *more)


CLOSING = (tcp(9001), Step(Protocol.UDP, 8002))
PAIRS = {
    "iptables": (ACCEPT.format("I"), ACCEPT.format("D")),
    "iptables by number and name": (ACCEPT.format("I"), ACCEPT.format("D").replace("22", "ssh")),
    "ufw": (UFW.format("allow"), UFW.format("delete allow")),
    "firewalld": (f"firewall-cmd --add-rich-rule='{RICH}'", f"firewall-cmd --remove-rich-rule='{RICH}'"),
    "nft": (NFT.format("add"), "nft delete rule inet filter input handle <handle>"),
    "the closer first": (ACCEPT.format("D"), ACCEPT.format("I")),
}


@pytest.mark.parametrize(("opening", "closing"), PAIRS.values(), ids=PAIRS)
def test_sequence_that_closes_becomes_close_steps_of_the_door(opening: str, closing: str) -> None:
    text = pair(opening, closing)
    (one,) = read_back(text)
    first = opening != ACCEPT.format("D")
    steps = (tcp(7001), Step(Protocol.UDP, 8002), tcp(7503))
    assert (one.steps, one.close_steps) == ((steps, CLOSING) if first else (CLOSING, steps))
    assert (one.access.duration, one.access.command) == (3600, None)
    names = ("openSSH", "closeSSH") if first else ("closeSSH", "openSSH")
    assert f"# [{names[1]}] closes the door ahead of its time: it is in close_steps." in text
    assert f"# [{names[1]}]\n# In close_steps of {names[0]}.\n" in text


def test_closer_keeps_its_command_if_something_it_closes_is_no_door() -> None:
    script = pair("/root/open %IP%", ACCEPT.format("D"))
    assert [one.access.command for one in read_back(script)][1] == CommandOpening(ACCEPT.format("D"))
    more = pair(ACCEPT.format("A"), f"{ACCEPT.format('D')}; {ACCEPT.format('D').replace('22', '80')}")
    assert [one.close_steps for one in read_back(more)] == [(), ()]


OTHER_OPENERS = {
    "is a condition": [f"Command = test -e /x && {ACCEPT.format('A')}"],
    "is a loop": [f"Command = for i in 1; do {ACCEPT.format('A')}; done"],
    "has an unknown stop command": [f"Command = {ACCEPT.format('A')}", "Stop_Command = /root/close"],
}


@pytest.mark.parametrize("other", OTHER_OPENERS.values(), ids=OTHER_OPENERS)
def test_closer_that_another_command_needs_stays_and_its_door_too(other: list[str]) -> None:
    text = pair(ACCEPT.format("A"), ACCEPT.format("D"), "[other]", "Sequence = 5,4,9", *other)
    opener, closer, _ = read_back(text)
    assert (opener.access.ports, opener.access.command) == ((), CommandOpening(ACCEPT.format("A")))
    assert (closer.access.ports, closer.access.command) == ((), CommandOpening(ACCEPT.format("D")))
    assert "# No door: [closeSSH] also closes what the command of [other] opens.\n[[sequence]]" in text


def test_firewall_named_in_a_message_is_none() -> None:
    one = only(
        f"Command = {ACCEPT.format('A')}; logger 'iptables: open for %IP%'", f"Stop_Command = {ACCEPT.format('D')}"
    )
    assert one.access == Access.of("ssh", SSH, 10, CommandOpening("logger 'iptables: open for %IP%'"))


def test_conditions_among_other_commands_stay_conditions() -> None:
    one = only(f"Command = {ACCEPT.format('A')}; test -e /x && logger x", f"Stop_Command = {ACCEPT.format('D')}")
    assert one.access.command == CommandOpening("test -e /x && logger x")


def test_stop_command_at_once_is_a_note() -> None:
    text = toml(
        "[a]", STEPS, f"Command = {ACCEPT.format('A')}", f"Stop_Command = {ACCEPT.format('D')}", "Cmd_Timeout=0"
    )
    assert "# The stop command runs after 0 s, expected a number of seconds from 0.1 to " in text


def test_rest_of_closing_line_runs_when_the_door_closes() -> None:
    text = pair(f"{ACCEPT.format('A')}; service ssh start", f"service ssh stop;{ACCEPT.format('D')}")
    (one,) = read_back(text)
    assert one.access.command == CommandOpening("service ssh start", "service ssh stop", 3600)


def test_another_time_limit_of_the_closer_is_in_a_comment() -> None:
    said = "# Its knocks had 15 s; here both have the same timeout.\n"
    assert said in pair(ACCEPT.format("A"), ACCEPT.format("D"), "Seq_Timeout = 15")
    assert said not in pair(ACCEPT.format("A"), ACCEPT.format("D"))


def test_closer_with_a_stop_command_leaves_it_to_the_door() -> None:
    text = pair(ACCEPT.format("A"), ACCEPT.format("D"), "Stop_Command = logger closed")
    (one,) = read_back(text)
    assert (one.close_steps, one.access.command) == (CLOSING, CommandOpening("true", "logger closed", 3600))
    text = pair(ACCEPT.format("A"), ACCEPT.format("D"), f"Stop_Command = {ACCEPT.format('D')}")
    (one,) = read_back(text)
    assert (one.close_steps, one.access.command) == (CLOSING, None)


def test_pairs_of_one_port_are_told_apart_by_name() -> None:
    lines = [
        line
        for at, name in enumerate(["open-ann", "open-bob", "close-bob", "close-ann"])
        for line in (f"[{name}]", f"Sequence = {7001 + 10 * at},8002", f"Command = {ACCEPT.format('AADD'[at])}")
    ]
    assert {one.name: one.close_steps[0].port for one in read_back(toml(*lines))} == {
        "open-ann": 7031,
        "open-bob": 7021,
    }


def test_one_closer_of_several_doors_is_close_steps_of_each() -> None:
    web = ACCEPT.format("A").replace("22", "80")
    closing = f"{ACCEPT.format('D')}; {web.replace('-A', '-D')}"
    text = pair(ACCEPT.format("A"), closing, "[web]", "Sequence = 5,4,9", f"Command = {web}")
    assert [(one.name, one.close_steps) for one in read_back(text)] == [("openSSH", CLOSING), ("web", CLOSING)]


def test_second_closer_of_a_door_is_left_out_with_the_reason() -> None:
    text = pair(ACCEPT.format("A"), ACCEPT.format("D"), "[off]", "Sequence = 5,4,9", f"Command = {ACCEPT.format('D')}")
    assert [one.name for one in read_back(text)] == ["openSSH"]
    assert "# [off]\n# knockd takes" in text
    assert "# Left out: it closes what other sequences of this file open as doors" in text


def test_closer_with_steps_of_the_opener_is_left_out_of_the_door() -> None:
    text = toml("[a]", STEPS, f"Command = {ACCEPT.format('A')}", "[b]", STEPS, f"Command = {ACCEPT.format('D')}")
    (one,) = read_back(text)
    assert one.close_steps == ()
    assert "# Without close_steps: the close_steps of sequence a are the same as the steps of sequence a" in text
    assert "# [b]\n# Left out: the door of a cannot have these close_steps, and closes after its duration." in text
    assert "in close_steps." not in text


@pytest.mark.parametrize(
    ("lines", "opens", "command"),
    [
        pytest.param([], (Port(22),), None, id="none"),
        pytest.param(["Command_6 ="], (Port(22),), None, id="nothing"),
        pytest.param(
            [
                f"Command_6 = {ACCEPT.format('A').replace('ip', 'ip6')}",
                f"Stop_Command_6 = {ACCEPT.format('D').replace('ip', 'ip6')}",
            ],
            (Port(22),),
            None,
            id="the same",
        ),
        pytest.param(
            ["Command_6 = six", "Stop_Command_6 ="],
            (),
            CommandOpening(
                f"case %IP% in *:*) six;; *) {ACCEPT.format('A')};; esac",
                f"case %IP% in *:*) :;; *) {ACCEPT.format('D')};; esac",
                10,
            ),
            id="another one",
        ),
        pytest.param(
            ["Command_6 = six # x", "Stop_Command_6 = y"],
            (),
            CommandOpening(ACCEPT.format("A"), ACCEPT.format("D"), 10),
            id="a comment that would hide the rest",
        ),
    ],
)
def test_commands_for_ipv6(lines: list[str], opens: tuple[Port, ...], command: CommandOpening | None) -> None:
    door = ["[ssh]", STEPS, f"Command = {ACCEPT.format('A')}", f"Stop_Command = {ACCEPT.format('D')}", *lines]
    text = toml(*door)
    (one,) = read_back(text)
    assert (one.access.ports, one.access.command) == (opens, command)
    assert ("here the door opens for IPv6 addresses, too" in text) == (bool(opens) and len(lines) < 2)


@pytest.mark.parametrize(
    ("flags", "nearest"),
    [
        ("syn", Flags.SYN),
        ("syn,!ack", Flags.SYN),
        ("fin,!ack", Flags.FIN),
        ("!ack", Flags.SYN),
        ("!syn", 0),
        ("fin,syn,rst,psh,ack,urg", ALL_FLAGS),
        ("syn,!fin,!rst,!psh,!ack,!urg", Flags.SYN),
    ],
)
def test_flags_become_the_most_similar_ones(flags: str, nearest: int) -> None:
    assert only(f"TCPFlags = {flags}", "Command = true").steps[0] == tcp(7001, nearest)


def test_step_with_every_flag_needs_no_note() -> None:
    assert "knockd takes TCP" not in toml("[a]", STEPS, "TCPFlags = syn,!fin,!rst,!psh,!ack,!urg", "Command = true")
    assert "knockd takes TCP packets with any flags; here they are with SYN" in toml("[a]", STEPS, "Command = true")


def test_unsupported_door_is_commented_out_with_the_reason() -> None:
    text = toml(
        *("[one step]", "Sequence = 7", "Command = true"),
        *("[once]", "One_Time_Sequences = /x", "Command = true"),
        *("[nothing to do]", STEPS),
        *("[good]", STEPS, "Command = true"),
        *("[same]", STEPS, "Command = true"),
        *("[begins]", f"{STEPS},9", "Command = true"),
    )
    assert [one.name for one in read_back(text)] == ["good"]
    for reason in (
        "the list has 1 step, expected 2 to 32",
        "it has one-time sequences; import knockd's file for them",
        "neither opens nor runs anything",
        "the sequences good and same are the same",
        "sequence begins begins with all steps of sequence good",
    ):
        assert f"\n# Commented out, because this file cannot have it: {reason}" in text or reason in text


def test_names_are_made_valid_and_unique() -> None:
    names = ["ssh", "open SSH", "open_SSH", "main", "1 2", "ä ö", "x" * 40, "x" * 41, "ssh"]
    lines = [line for at, name in enumerate(names) for line in (f"[{name}]", f"Sequence = 7,{at + 1}", "Command = a")]
    assert [one.name for one in read_back(toml(*lines))] == [
        *("ssh", "open_SSH", "open_SSH-2", "main-door", "a-door", "ä_ö", "x" * 32, "x" * 30 + "-2", "ssh-2")
    ]


def test_neighbouring_ports_get_no_traps_and_long_times_stay() -> None:
    text = toml("[a]", "Sequence = 7,8,9", "Timeout = 100000", "Command = a", "Stop_Command = b", "Cmd_Timeout = 99999")
    (one,) = read_back(text)
    assert (one.traps, one.timeout, one.access.command) == (0, 100000, CommandOpening("a", "b", 99999))
    assert "knockd waits" not in text
    assert "no trap fits" in text


LINES = st.sampled_from(
    [
        *("[a]", "[b c]", "[main]", STEPS, "Sequence = 7", "Sequence = 7,8", "TCPFlags = !syn", "TCPFlags = fin,ack"),
        *(f"Command = {ACCEPT.format('D')}", "Command = ufw allow from %IP% to any port 22; true"),
        *(f"Command = {ACCEPT.format('A')}", f"Stop_Command = {ACCEPT.format('D')}", "Command_6 =", "Command_6 = x"),
        *('Stop_Command_6 = "\'\\"\'" \\', "Cmd_Timeout = 0", "Target = 192.0.2.1", "Command = \xa0\t", "Timeout = 1"),
    ]
)


WORDS = sorted(
    {word for line in (*DOORS.values(), *COMMANDS.values()) for part in line[:2] for word in str(part).split()}
)


@given(
    st.sampled_from(["iptables", "nft add rule", "nft delete", "ufw", "firewall-cmd"]), st.lists(st.sampled_from(WORDS))
)
def test_any_words_are_understood_or_stay_a_command(program: str, words: list[str]) -> None:
    line = " ".join([program, *words])
    (one,) = read_back(toml("[ssh]", STEPS, f"Command = {line}"))
    assert not one.access.ports or "%IP%" in line


@given(st.lists(LINES, max_size=16).map(lambda lines: ["[z]", "Sequence = 9,3", *lines]))
def test_native_reader_accepts_any_output(lines: list[str]) -> None:
    try:
        text = toml(*lines)
    except ConfigError:
        return
    read_back(text)
