"""Settings of zones, policies and services as firewalld sends them: dictionaries of variants (firewalld.dbus(5))."""

from collections.abc import Mapping
from typing import Any

from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall.zone_settings import ServiceSettings, ZoneSettings


def settings(name: str, found: Mapping[str, Any], *, is_policy: bool = False) -> ZoneSettings:
    """The settings of a zone or a policy, from those of `getZoneSettings2` or `getPolicySettings`."""
    return ZoneSettings(
        name,
        target=value(found, "target", "s", "default"),
        services=texts(found, "services"),
        ports=pairs(found, "ports"),
        source_ports=pairs(found, "source_ports"),
        protocols=texts(found, "protocols"),
        # Zones use the older name.
        rich_rules=texts(found, "rich_rules") + texts(found, "rules_str"),
        is_policy=is_policy,
        interfaces=texts(found, "interfaces"),
        sources=texts(found, "sources"),
    )


def service(found: Mapping[str, Any]) -> ServiceSettings:
    """A service's definition, from that of `getServiceSettings2`."""
    return ServiceSettings(
        ports=pairs(found, "ports"),
        source_ports=pairs(found, "source_ports"),
        protocols=texts(found, "protocols"),
        includes=texts(found, "includes"),
        limited=bool(value(found, "destination", "a{ss}", {})),
    )


def value(settings: Mapping[str, Any], key: str, signature: str, default: Any) -> Any:
    """The value of the key; firewalld leaves out what is empty."""
    if key not in settings:
        return default
    if settings[key].signature != signature:
        raise FirewallError(f"its settings have {key} of the wrong type")
    return settings[key].value


def texts(settings: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts."""
    return tuple(value(settings, key, "as", ()))


def pairs(settings: Mapping[str, Any], key: str) -> tuple[tuple[str, str], ...]:
    """A list of pairs, such as a port and its protocol."""
    return tuple((one, other) for one, other in value(settings, key, "a(ss)", ()))
