"""What the daemon answers without anything of the world; the system tests have the rest."""

import asyncio
from ipaddress import ip_address

import pytest

from port_knocking_doors.config.loader import Loaded
from port_knocking_doors.daemon.daemon import Daemon
from port_knocking_doors.errors import ConfigError
from port_knocking_doors.model import Access, CommandOpening, Protocol, Sequence, Settings, Step

ONE = Sequence("ssh", (Step(Protocol.UDP, 20001),), access=Access.of("ssh", command=CommandOpening("true")))
WITHOUT = Settings(guarded_ports=(), opening_sequence=(), open_knock_ports=False, sequences=(ONE,))


@pytest.mark.parametrize(
    ("settings", "name", "said"),
    [
        pytest.param(WITHOUT, "", "there is no opening sequence, expected one of: ssh", id="none to open by itself"),
        pytest.param(WITHOUT, "vpn", "there is no sequence 'vpn', expected one of: ssh", id="an unknown one"),
        pytest.param(Settings(), "vpn", "there is no sequence 'vpn', expected one of: main", id="the native one"),
    ],
)
def test_what_cannot_be_opened_by_hand_is_told_with_what_can(settings: Settings, name: str, said: str) -> None:
    async def ask() -> None:
        loaded = Loaded(settings, None, ())
        await Daemon(loaded, lambda: loaded).handler.open(ip_address("::1"), name)

    with pytest.raises(ConfigError) as refused:
        asyncio.run(ask())
    assert str(refused.value) == said
