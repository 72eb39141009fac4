"""Answers, on a sandbox's server, which zone the program takes for packets: a line of JSON for each line of JSON.

A question is a list of pairs of address and interface; its answer is a list of pairs of zones and doubtful zones.
"""

import asyncio
import json
import os
import sys
from collections.abc import Iterable
from ipaddress import ip_address

from port_knocking_doors.firewall import firewalld
from port_knocking_doors.sandbox import Process, Sandbox

Packet = tuple[str, str]
"""Source address and interface."""
Answer = tuple[list[str], list[str]]
"""The zones, and those that the packet may belong to."""


class ZoneLookup:
    """The program on a server, from the test's side. Close it before the sandbox ends."""

    def __init__(self, box: Sandbox) -> None:
        theirs, self._questions = os.pipe()
        argv = [sys.executable, "-m", "tests.helpers.zone_lookup"]
        try:
            self._process: Process = box.server.popen(argv, stdin=theirs)
        finally:
            os.close(theirs)
        self._answered = 0

    def ask(self, packets: Iterable[Packet]) -> list[Answer]:
        """The answers for packets, by the zones as they are now."""
        os.write(self._questions, json.dumps(list(packets)).encode() + b"\n")
        line = self._process.stdout.wait_for(r"\]$", 20.0, start=self._answered)
        self._answered += 1
        return [(zones, doubts) for zones, doubts in json.loads(line)]

    def close(self) -> None:
        os.close(self._questions)
        self._process.wait(10)


async def _answer(packets: list[Packet]) -> list[Answer]:
    async with firewalld.connected() as client:
        zones = await client.zones()
    found = [zones.match(ip_address(address), interface) for address, interface in packets]
    return [(list(match.zones), [doubt.zone for doubt in match.doubts]) for match in found]


if __name__ == "__main__":
    for question in sys.stdin:
        print(json.dumps(asyncio.run(_answer(json.loads(question)))), flush=True)
