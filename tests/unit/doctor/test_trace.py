"""The deciding rule in the output of `nft monitor trace`, which is that of nft 1.0.6."""

import pytest

from port_knocking_doors.doctor.trace import Decision, decision

PACKET = 'trace id 706b17a6 {} packet: iif "eth0" ip saddr 192.0.2.7 udp sport 40000 udp dport 7 udp length 14 '
RULE = "trace id 706b17a6 {} rule {} (verdict {})"
POLICY = "trace id 706b17a6 {} policy {} "
ENDED = "trace id 706b17a6 {} verdict continue "
ZONES, IN_PUBLIC = "inet firewalld filter_INPUT_ZONES", "inet firewalld filter_IN_public"
STRICT = "inet firewalld filter_IN_policy_strict"

DECISIONS: dict[str, tuple[tuple[str, ...], Decision | None, str]] = {
    "nothing": ((), None, ""),
    "lines of another kind": (("", "table inet t", "nft: no trace", "add rule inet t c drop"), None, ""),
    "no rule": ((PACKET.format("inet t c"), POLICY.format("inet t c", "accept")), None, ""),
    "policy that drops": (
        (POLICY.format("inet early c", "accept"), POLICY.format("ip mine input", "drop meta mark 0x1")),
        Decision("ip", "mine", "input", ""),
        "table ip mine, chain input, its policy drop",
    ),
    "rule that drops": (
        (
            RULE.format("inet t c", "jump d", "jump d"),
            RULE.format("inet t d", 'udp dport 5 counter packets 3 bytes 9 drop comment "x (verdict y)"', "drop"),
        ),
        Decision("inet", "t", "d", 'udp dport 5 drop comment "x (verdict y)"'),
        'table inet t, chain d, `udp dport 5 drop comment "x (verdict y)"`',
    ),
    "policy of firewalld": (
        (RULE.format(f"{STRICT}_deny", "tcp dport 22 reject", "drop"),),
        Decision("inet", "firewalld", "filter_IN_policy_strict_deny", "tcp dport 22 reject"),
        "policy strict of firewalld, `tcp dport 22 reject`",
    ),
    "target of a policy of firewalld": (
        (RULE.format(STRICT, "drop", "drop"),),
        Decision("inet", "firewalld", "filter_IN_policy_strict", "drop"),
        "policy strict of firewalld, `drop`",
    ),
    "rule that accepts, the latest": (
        (
            RULE.format("inet mine c", "accept", "accept"),
            RULE.format(ZONES, "goto filter_IN_public", "goto filter_IN_public"),
            RULE.format(f"{IN_PUBLIC}_allow", "tcp dport 22 accept", "accept"),
            POLICY.format("inet other c", "accept"),
        ),
        Decision("inet", "firewalld", "filter_IN_public_allow", "tcp dport 22 accept", accepts=True),
        "table inet firewalld, chain filter_IN_public_allow, `tcp dport 22 accept`",
    ),
    "denied behind a rule that accepts": (
        (RULE.format("inet a c", "accept", "accept"), ENDED.format("inet b c"), POLICY.format("inet b c", "drop")),
        Decision("inet", "b", "c", ""),
        "table inet b, chain c, its policy drop",
    ),
    "rule that accepts another packet": (
        (PACKET.format("inet t c"), "trace id 828d4a26 inet t c rule accept (verdict accept)"),
        None,
        "",
    ),
    "answer that is denied": (
        (
            RULE.format("inet a c", "accept", "accept"),
            "trace id 828d4a26 inet t out rule tcp sport 22 drop (verdict drop)",
        ),
        Decision("inet", "t", "out", "tcp sport 22 drop"),
        "table inet t, chain out, `tcp sport 22 drop`",
    ),
}


@pytest.mark.parametrize(("lines", "found", "text"), DECISIONS.values(), ids=DECISIONS)
def test_trace_shows_what_decided_over_the_first_packet(
    lines: tuple[str, ...], found: Decision | None, text: str
) -> None:
    assert decision("\n".join(lines)) == found
    assert found is None or str(found) == text
