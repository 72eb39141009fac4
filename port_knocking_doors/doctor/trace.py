"""The output of `nft monitor trace`: the rule that decided over a packet."""

import re
from typing import NamedTuple

_LINE = re.compile(
    r"^trace id (?P<id>\w+) (?P<family>\w+) (?P<table>\S+) (?P<chain>\S+) "
    r"(?:rule (?P<rule>.*) \(verdict (?P<verdict>\w+)[^)]*\)|policy (?P<policy>\w+)|verdict \w+|packet: )"
)
_COUNTER = re.compile(r"\bcounter packets \d+ bytes \d+ ?")
_DENYING = ("drop", "reject")
_POLICY = re.compile(r"filter_IN_policy_(?P<policy>.+?)(?:_(?:pre|log|deny|allow|post))?")
"""firewalld's chains of a policy to this host."""

FIREWALLD = "firewalld"
"""The table of firewalld's nftables back end."""


class Decision(NamedTuple):
    """The rule, or a chain's policy, that accepted or denied a packet."""

    family: str
    table: str
    chain: str
    rule: str
    """Empty where the chain's policy decided."""
    accepts: bool = False

    def __str__(self) -> str:
        what = f"`{self.rule}`" if self.rule else f"its policy {'accept' if self.accepts else 'drop'}"
        if (policy := self.policy) is not None:
            return f"policy {policy} of firewalld, {what}"
        return f"table {self.family} {self.table}, chain {self.chain}, {what}"

    @property
    def policy(self) -> str | None:
        """The name of firewalld's policy that the chain belongs to."""
        match = _POLICY.fullmatch(self.chain) if self.table == FIREWALLD else None
        return match["policy"] if match is not None else None


def decision(output: str) -> Decision | None:
    """What decided: the denial of a packet, or of its answer; else the latest rule that accepted the first packet."""
    first = ""
    found: Decision | None = None
    for line in output.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        first = first or match["id"]
        verdict = match["verdict"] or match["policy"]
        rule = _COUNTER.sub("", match["rule"] or "").strip()
        place = match["family"], match["table"], match["chain"], rule
        if verdict in _DENYING:
            return Decision(*place)
        if verdict == "accept" and rule and match["id"] == first:
            found = Decision(*place, accepts=True)
    return found
