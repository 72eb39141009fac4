"""One command line of a firewall's program as its effect, and lines that the reader of the program does not take."""

import pytest

from port_knocking_doors.config import firewall_command, firewall_effect
from port_knocking_doors.config.firewall_effect import Act, Effect, Unclear
from port_knocking_doors.config.service_names import ServiceNames
from port_knocking_doors.config.shell_line import split
from port_knocking_doors.model import Port, Protocol

SSH = (Port(22),)
BOTH = (Port(22), Port(22, Protocol.UDP))
IN_INPUT = "The command's rule is in chain inet filter input."
LOG = "Left out: the rule's log. The log of this program has each door."
NFT = "nft add rule inet filter input "
RICH = "firewall-cmd --add-rich-rule='rule {}'"


def effect(line: str) -> Effect | None:
    """The effect of a line of one command."""
    found = split(line)
    assert found is not None
    (command,) = found.commands
    return firewall_command.PROGRAMS[command.words[0]](command.words, ServiceNames())


def nft(*told: str, family: int = 4, ports: tuple[Port, ...] = SSH, unclear: Unclear | None = None) -> Effect:
    return Effect(Act.OPEN, ports, "chain inet filter input", family, unclear=unclear, told=(IN_INPUT, *told))


EFFECTS = {
    # ufw
    "ufw reload": Effect(Act.IGNORED, told=("Left out: ufw reload. A door needs none.",)),
    "ufw rule allow from %IP% to any port 22 proto tcp": Effect(Act.OPEN, SSH, "ufw"),
    "ufw prepend allow from %IP% to any port 22": Effect(Act.OPEN, BOTH, "ufw"),
    "ufw --force delete 3": Effect(Act.CLOSE, place="ufw"),
    "ufw allow 22/icmp": Effect(Act.OPEN, place="ufw", unclear=Unclear.EVERY_ADDRESS),
    "ufw allow to any port 22 proto tcp": Effect(Act.OPEN, SSH, "ufw", unclear=Unclear.EVERY_ADDRESS),
    "ufw allow in on eth1 log from %IP% to any port 22 proto tcp": Effect(
        Act.OPEN, SSH, "ufw", told=("The command's rule is for packets on eth1 only.",)
    ),
    # nft
    NFT + "position 4 ip saddr %IP% tcp dport 22 accept": nft(),
    NFT + "ip saddr { %IP% } tcp dport { 22 } accept": nft(),
    NFT + "ip6 saddr %IP% meta l4proto { tcp, udp } th dport 22 accept": nft(family=6, ports=BOTH),
    NFT + "ip saddr %IP% tcp dport 22 counter packets 0 bytes 0 accept": nft(),
    NFT + "ip saddr %IP% tcp dport 22 log prefix '\"knock \"' level info accept": nft(LOG),
    NFT + "ip saddr %IP% tcp dport 22 log accept comment '\"for Ann\"'": nft(LOG, "The command's comment: for Ann"),
    NFT + "iifname eth1 tcp dport 22 accept": nft(
        "The command's rule is for packets on eth1 only.", family=0, unclear=Unclear.EVERY_ADDRESS
    ),
    NFT + "ip saddr %IP% accept": nft(ports=(), unclear=Unclear.EVERY_PORT),
    # iptables
    "iptables -w 5 -A INPUT -j ACCEPT": Effect(Act.OPEN, (), "chain INPUT", 4, unclear=Unclear.EVERY_ADDRESS),
    "iptables -A INPUT -s %IP% -p tcp --dport 1:65 -j ACCEPT": Effect(
        Act.OPEN, (), "chain INPUT", 4, unclear=Unclear.TOO_MANY
    ),
    "ipset add knocked %IP%,udp:53 timeout 1m30s": Effect(
        Act.OPEN, (Port(53, Protocol.UDP),), "set knocked", 4, 90, told=("The command's entry is in set knocked.",)
    ),
    # firewalld
    "firewall-cmd -q --add-service ssh": Effect(Act.OPEN, SSH, "zone ", unclear=Unclear.EVERY_ADDRESS),
    "firewall-cmd --timeout=0 --add-port=22/tcp": Effect(Act.OPEN, SSH, "zone ", unclear=Unclear.EVERY_ADDRESS),
    "firewall-cmd --ipset=knocked --add-entry=%IP%": Effect(Act.OPEN, (), "set knocked", unclear=Unclear.ELSEWHERE),
    RICH.format("source address=%IP% service name=ssh log prefix=x accept"): Effect(
        Act.OPEN, SSH, "zone ", told=("Left out: the rule's log. The log of this program has each door.",)
    ),
}


@pytest.mark.parametrize(("line", "expected"), EFFECTS.items(), ids=EFFECTS)
def test_command_line_has_this_effect(line: str, expected: Effect) -> None:
    assert effect(line) == expected


NOT_TAKEN = [
    "ufw allow out from %IP% to any port 22",
    "ufw allow from %IP% port 22",
    "ufw allow from %IP% from %IP% to any port 22",
    "ufw allow from %IP% to 192.0.2.1 port 22",
    "ufw allow from %IP% to any port nosuch",
    "ufw allow from %IP% to any port 22 proto esp",
    "ufw deny from %IP%",
    "nft list ruleset",
    "nft list table inet filter",
    "nft flush chain inet filter input",
    "nft add chain inet filter input x",
    NFT + "handle 4",
    "nft add element inet filter knocked %IP%",
    "nft add element inet filter knocked { 192.0.2.1 }",
    NFT + "ip saddr %IP% tcp dport 22",
    NFT + "ip saddr %IP% tcp dport { 22",
    NFT + "ip saddr %IP% tcp",
    NFT + "ip saddr %IP% tcp dport nosuch accept",
    NFT + "ip saddr %IP% accept tcp dport 22",
    NFT + "ip saddr %IP% accept comment",
    NFT + "ip saddr %IP% th dport 22 accept",
    NFT + "ip saddr %IP% meta l4proto icmp accept",
    NFT + "ip saddr %IP% tcp dport 22 ct state established accept",
    NFT + "ip saddr 192.0.2.1 tcp dport 22 accept",
    NFT + "ip saddr %IP% limit rate 3/minute accept",
    "iptables -A INPUT -s %IP% -p sctp --dport 22 -j ACCEPT",
    "iptables -A INPUT -s %IP% -p tcp --dport nosuch -j ACCEPT",
    "iptables -A INPUT -s %IP% -p tcp --dport 0 -j ACCEPT",
    "iptables -A OUTPUT -d %IP% -j ACCEPT",
    "iptables -L -n",
    "knock_add -i -f %IP% -d 22 --verbose",
    "knock_add -f %IP% -d 22",
    "ipset list",
    "ipset add knocked %IP% timeout soon",
    "ipset add knocked 192.0.2.1",
    "ipset add knocked %IP%,icmp:8",
    "firewall-cmd --add-service",
    "firewall-cmd --add-service=ssh --timeout=soon",
    "firewall-cmd --add-port=22/icmp",
    "firewall-cmd --list-all",
    "firewall-cmd --direct --get-all-rules",
    "firewall-cmd --direct --add-rule eb filter INPUT 0 -s %IP% -j ACCEPT",
    'firewall-cmd --add-rich-rule="rule source address=\'%IP%"',
    "firewall-cmd --add-rich-rule='no rule source address=%IP% accept'",
    "firewall-cmd --add-rich-rule=",
    RICH.format("family=ipv4 priority=1 invert=True source address=%IP% accept"),
    RICH.format("source address=%IP% port port=22 protocol=tcp"),
    RICH.format("source address=%IP% accept limit value=1/m"),
]


@pytest.mark.parametrize("line", NOT_TAKEN)
def test_command_line_of_another_kind_has_no_effect(line: str) -> None:
    assert effect(line) is None


OPENS, CLOSES, CHECKS = (f"iptables -{verb} INPUT -s %IP% -p tcp --dport 22 -j ACCEPT" for verb in "ADC")
DEPENDING = {
    "after another program that fails": f"logger a || {OPENS}",
    "if another rule exists not": f"{CHECKS} || {OPENS.replace('22', '80')}",
    "if it exists": f"{CHECKS} && {OPENS}",
    "another one closed by the sleep": f"{OPENS}; sleep 3; {CLOSES.replace('22', '80')}",
    "opened after the sleep": f"{OPENS}; sleep 3; {OPENS.replace('22', '80')}",
    "piped on": f"yes | {OPENS} | logger",
}


@pytest.mark.parametrize("line", DEPENDING.values(), ids=DEPENDING)
def test_line_whose_commands_depend_on_each_other_is_not_taken(line: str) -> None:
    assert firewall_command.read(line, ServiceNames()) is None


OPENED = Effect(Act.OPEN, SSH, "chain INPUT", 4)
UNDOING = {
    "the same": (Effect(Act.CLOSE, SSH, "chain X"), OPENED, True),
    "the same, of the other family": (Effect(Act.CLOSE, SSH, "chain INPUT", 6), OPENED, False),
    "by its number": (Effect(Act.CLOSE, (), "chain INPUT", 4), OPENED, True),
    "by a number elsewhere": (Effect(Act.CLOSE, (), "chain X", 4), OPENED, False),
    "other ports": (Effect(Act.CLOSE, BOTH, "chain INPUT", 4), OPENED, False),
    "no removal": (OPENED, OPENED, False),
    "of no addition": (Effect(Act.CLOSE, SSH), Effect(Act.CLOSE, SSH), False),
}


@pytest.mark.parametrize(("one", "other", "undoes"), UNDOING.values(), ids=UNDOING)
def test_removal_undoes_the_addition_of_the_same_rule(one: Effect, other: Effect, undoes: bool) -> None:
    assert one.undoes(other) is undoes


@pytest.mark.parametrize(
    ("text", "seconds"), [("60", 60), ("30s", 30), ("1h30m", 5400), ("0", None), ("soon", None), ("", None)]
)
def test_period_is_read_in_seconds(text: str, seconds: float | None) -> None:
    assert firewall_effect.seconds_of(text) == seconds
