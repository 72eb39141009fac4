"""The remedy that a message names where polkit denies a change."""

import os
import pwd
from types import SimpleNamespace

import pytest

from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall import polkit
from port_knocking_doors.firewall.error_codes import NOT_AUTHORIZED, UNREACHABLE

DENIED = FirewallError("not authorized", NOT_AUTHORIZED)
NO_POLKIT = FirewallError("not authorized (uid)", NOT_AUTHORIZED)
REMEDIES = {
    "another error": (FirewallError("gone", UNREACHABLE), "alice", ""),
    "no polkit": (NO_POLKIT, "alice", ": polkit is not running, so user alice may not "),
    "the user of the service": (DENIED, polkit.SERVICE_USER, f": polkit denies user {polkit.SERVICE_USER} "),
    "another user": (DENIED, "alice", ": polkit denies user alice to change the firewall: run as root, "),
    "a user without a name": (DENIED, None, f": polkit denies user {os.geteuid()} to change the firewall: run as "),
}


@pytest.mark.parametrize(("error", "name", "said"), REMEDIES.values(), ids=REMEDIES)
def test_denied_user_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, error: FirewallError, name: str | None, said: str
) -> None:
    def entry(_: int) -> SimpleNamespace:
        if name is None:
            raise KeyError
        return SimpleNamespace(pw_name=name)

    monkeypatch.setattr(pwd, "getpwuid", entry)
    remedy = polkit.remedy(error)
    assert remedy.startswith(said)
    assert bool(remedy) is bool(said)
