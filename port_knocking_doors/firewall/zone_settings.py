"""Settings of firewalld's zones, policies and services, as far as they matter for incoming packets."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ZoneSettings:
    """The settings of a zone or a policy that matter for incoming packets."""

    name: str
    target: str = "default"
    services: tuple[str, ...] = ()
    ports: tuple[tuple[str, str], ...] = ()
    """Port or range, such as `1000-2000`, and protocol."""
    source_ports: tuple[tuple[str, str], ...] = ()
    protocols: tuple[str, ...] = ()
    rich_rules: tuple[str, ...] = ()
    is_policy: bool = False
    interfaces: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    """Of a zone: the interfaces and sources whose packets belong to it."""

    def without_rule(self, rule: str) -> "ZoneSettings":
        """The same settings, but for a rich rule."""
        return replace(self, rich_rules=tuple(one for one in self.rich_rules if one != rule))

    def __str__(self) -> str:
        return f"{'policy' if self.is_policy else 'zone'} {self.name}"


@dataclass(frozen=True)
class ServiceSettings:
    """A service's definition; `includes` are names of others (firewalld.service(5))."""

    ports: tuple[tuple[str, str], ...] = ()
    source_ports: tuple[tuple[str, str], ...] = ()
    protocols: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()
    limited: bool = False
    """Whether it is for packets to certain addresses only."""
