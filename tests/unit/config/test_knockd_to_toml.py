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


@pytest.mark.parametrize(
    ("start", "stop", "opens", "duration"),
    [
        pytest.param(ACCEPT.format("I"), ACCEPT.format("D"), (Port(22),), 10, id="inserted"),
        pytest.param(
            "iptables -I INPUT 1 -p udp -s %IP%/32 --dport 1194 -j ACCEPT",
            "iptables -D INPUT -s %IP% -p udp --dport 1194 -j ACCEPT",
            (Port(1194, Protocol.UDP),),
            10,
            id="at a place, in another order",
        ),
        pytest.param(
            "iptables -w -A INPUT -s %IP% -p tcp -m multiport --dports 80,443 -m state --state NEW -j ACCEPT",
            "iptables -w -D INPUT -s %IP% -p tcp -m multiport --dports 80,443 -m state --state NEW -j ACCEPT",
            (Port(80), Port(443)),
            10,
            id="several ports",
        ),
        pytest.param(
            f"firewall-cmd --add-rich-rule='{RICH}'",
            f"/usr/bin/firewall-cmd --remove-rich-rule '{RICH}'",
            (Port(443),),
            10,
            id="firewalld",
        ),
        pytest.param(f"firewall-cmd --timeout=5m --add-rich-rule='{RICH}'", "", (Port(443),), 300, id="its timeout"),
        # Commands that may have another effect stay commands.
        pytest.param(
            "iptables -A INPUT -s %IP% -j ACCEPT", "iptables -D INPUT -s %IP% -j ACCEPT", (), 0, id="all ports"
        ),
        pytest.param(ACCEPT.format("A"), ACCEPT.format("D").replace("22", "23"), (), 0, id="another port"),
        pytest.param(ACCEPT.format("A"), "", (), 0, id="for ever"),
        pytest.param(ACCEPT.format("D"), ACCEPT.format("A"), (), 0, id="the other way round"),
        pytest.param(f"{ACCEPT.format('A')}; true", ACCEPT.format("D"), (), 0, id="and something else"),
        pytest.param(ACCEPT.format("A") + " -i eth0", ACCEPT.format("D") + " -i eth0", (), 0, id="another condition"),
        pytest.param(
            ACCEPT.format("A").replace("-s", "! -s"),
            ACCEPT.format("D").replace("-s", "! -s"),
            (),
            0,
            id="all other addresses",
        ),
        pytest.param(
            ACCEPT.format("A").replace("INPUT", "FORWARD"),
            ACCEPT.format("D").replace("INPUT", "FORWARD"),
            (),
            0,
            id="chain",
        ),
        pytest.param(
            ACCEPT.format("A").replace("22", "ssh"), ACCEPT.format("D").replace("22", "ssh"), (), 0, id="name"
        ),
        pytest.param(ACCEPT.format("A").replace("%IP%", "1.2.3.4"), ACCEPT.format("D"), (), 0, id="another address"),
        pytest.param(ACCEPT.format("A").replace("ACCEPT", "DROP"), ACCEPT.format("D"), (), 0, id="denies"),
        pytest.param(
            f"firewall-cmd --permanent --add-rich-rule='{RICH}'",
            f"firewall-cmd --remove-rich-rule='{RICH}'",
            (),
            0,
            id="pe",
        ),
        pytest.param("echo '", "true", (), 0, id="no shell's text"),
    ],
)
def test_commands_become_ports_only_if_equivalent(
    start: str, stop: str, opens: tuple[Port, ...], duration: float
) -> None:
    one = only(f"Command = {start}", f"Stop_Command = {stop}")
    if opens:
        assert (one.access.ports, one.access.duration, one.access.command) == (opens, duration, None)
    else:
        assert (one.access.ports, one.access.command) == (
            (),
            CommandOpening(start, stop, 10) if stop else CommandOpening(start),
        )


def test_command_that_opens_permanently_has_advice() -> None:
    assert "\n# open = [22]\n" in toml("[ssh]", STEPS, f"Command = {ACCEPT.format('A')}")
    assert "# open" not in toml("[ssh]", STEPS, f"Command = {ACCEPT.format('D')}")


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
        *(f"Command = {ACCEPT.format('A')}", f"Stop_Command = {ACCEPT.format('D')}", "Command_6 =", "Command_6 = x"),
        *('Stop_Command_6 = "\'\\"\'" \\', "Cmd_Timeout = 0", "Target = 192.0.2.1", "Command = \xa0\t", "Timeout = 1"),
    ]
)


@given(st.lists(LINES, max_size=16).map(lambda lines: ["[z]", "Sequence = 9,3", *lines]))
def test_native_reader_accepts_any_output(lines: list[str]) -> None:
    try:
        text = toml(*lines)
    except ConfigError:
        return
    read_back(text)
