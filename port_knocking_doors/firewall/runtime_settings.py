"""A reload of firewalld that keeps the runtime settings of other programs, which a reload by itself drops.

They are read before and put back afterwards. What another program adds meanwhile stays. Interfaces, members and types
are those of firewalld.dbus(5).
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall.bus import NAME
from port_knocking_doors.firewall.error_codes import NO_ANSWER, NOT_AUTHORIZED
from port_knocking_doors.firewall.packed_strings import PackedStrings
from port_knocking_doors.system.log import logger

Call = Callable[..., Awaitable[Any]]
"""As `FirewalldBus.call`."""


class _Kind(NamedTuple):
    """How named objects with settings are read and written."""

    interface: str
    list: str
    read: str
    write: str
    signature: str
    """Of `write`."""


_KINDS = (
    _Kind(NAME + ".zone", "getZones", "getZoneSettings2", "setZoneSettings2", "sa{sv}"),
    _Kind(NAME + ".policy", "getPolicies", "getPolicySettings", "setPolicySettings", "sa{sv}"),
    _Kind(NAME + ".ipset", "getIPSets", "getEntries", "setEntries", "sas"),
)
_DIRECT = NAME + ".direct"
_DIRECT_KINDS = (
    ("getAllChains", "addChain", "sss"),
    ("getAllRules", "addRule", "sssias"),
    ("getAllPassthroughs", "addPassthrough", "sas"),
)
_RICH_RULES = ("rules_str", "rich_rules")
"""Keys of rich rules in the settings of zones and of policies."""

_DIRECT_LOST = (
    "firewalld's direct rules are denied to this user, so a reload keeps only permanent ones: a program that uses "
    "others has to add them again"
)

Settings = dict[tuple[_Kind, str], Any]


async def reload_sparing_others(call: Call, is_ours: Callable[[str], bool]) -> None:
    """Reload firewalld, and put back what it dropped but for the rich rules that `is_ours` selects.

    Raises `FirewallError` where the reload fails. What cannot be read or put back is left out, and logged.
    """
    settings = {key: _without(found, is_ours) for key, found in (await _read(call)).items()}
    direct = await _read_direct(call)
    await call(NAME, "reload", patient=True)
    await _put_back(call, settings, is_ours)
    now = await _read_direct(call) if any(direct) else direct
    for (_, add, signature), before, after in zip(_DIRECT_KINDS, direct, now, strict=True):
        for one in before:
            if one not in after:
                await _try(call, _DIRECT, add, signature, *one)


async def _read(call: Call) -> Settings:
    found: Settings = {}
    for kind in _KINDS:
        for name in await _try(call, kind.interface, kind.list) or ():
            settings = await _try(call, kind.interface, kind.read, "s", name)
            if settings is not None:
                found[kind, name] = settings
    return found


async def _read_direct(call: Call) -> list[list[Any]]:
    """The direct rules; empty where polkit denies them to this user, as it does to that of the unit."""
    return [list(await _try(call, _DIRECT, read) or ()) for read, _, _ in _DIRECT_KINDS]


async def _put_back(call: Call, settings: Settings, is_ours: Callable[[str], bool]) -> None:
    after = await _read(call)
    for (kind, name), before in settings.items():
        if (kind, name) in after:
            changed = _changed(before, _without(after[kind, name], is_ours))
            if changed:
                await _try(call, kind.interface, kind.write, kind.signature, name, changed)


def _without(settings: Any, is_ours: Callable[[str], bool]) -> Any:
    """The settings without our rich rules."""
    if not isinstance(settings, Mapping):
        return settings
    kept = dict(settings)
    for key in _RICH_RULES:
        if key in kept:
            rules = [rule for rule in kept[key].value if not is_ours(rule)]
            kept[key] = _like(kept[key], rules)
    return kept


def _changed(before: Any, now: Any) -> Any:
    """What to write so that what was there before is there, and what is there now stays; empty for nothing.

    Of the settings of a zone or a policy only those that differ, since firewalld takes no text there.
    """
    if not isinstance(before, Mapping):
        return _union(before, now) if set(before) - set(now) else []
    changed = {}
    for key, value in before.items():
        if isinstance(value.value, list):
            there = now[key].value if key in now else []
            if any(one not in there for one in value.value):
                changed[key] = _like(value, _union(value.value, there))
        elif isinstance(value.value, bool) and key in now and value.value != now[key].value:
            changed[key] = value
    return changed


def _union(before: list[Any], now: list[Any]) -> list[Any]:
    return [*now, *(one for one in before if one not in now)]


def _like(variant: Any, value: Any) -> Any:
    """A variant of the same type with another value."""
    return type(variant)(variant.signature, value)


def _plain(value: Any) -> Any:
    """The value with lists for every kind of array."""
    if hasattr(value, "signature"):  # a variant
        return _like(value, _plain(value.value))
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | PackedStrings):
        return [_plain(one) for one in value]
    return value


async def _try(call: Call, interface: str, member: str, signature: str = "", *arguments: Any) -> Any:
    """The result; None where firewalld has none, such as an older one without policies, or denies it."""
    try:
        return _plain(await call(interface, member, signature, *arguments))
    except FirewallError as error:
        if error.code in NO_ANSWER:
            raise
        if error.code == NOT_AUTHORIZED and member == _DIRECT_KINDS[0][0]:
            logger.warning("%s", _DIRECT_LOST)
        elif member.startswith(("set", "add")):
            logger.error("firewalld's runtime settings: %s failed after the reload: %s", member, error)
        return None
