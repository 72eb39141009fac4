"""What is known of firewalld and of the rules of ours in it: for reading."""

from collections.abc import Callable

from port_knocking_doors.firewall.firewalld import Firewalld
from port_knocking_doors.firewall.health import FirewalldHealth
from port_knocking_doors.firewall.kernel_check import KernelCheck
from port_knocking_doors.firewall.plan import Plan
from port_knocking_doors.model import FirewalldState


class KnownRules:
    """The reconciler's view of the firewall."""

    def __init__(self, firewalld: Firewalld, plan: Plan, priority: int) -> None:
        self._firewalld = firewalld
        self._plan = plan
        self._health = FirewalldHealth()
        self._removed = 0
        self.kernel = KernelCheck(firewalld, self._health, priority)
        """What the kernel holds."""

    @property
    def present(self) -> bool:
        """Whether firewalld is on the bus."""
        return self._firewalld.present

    @property
    def is_usable(self) -> bool:
        """Whether firewalld is on the bus and, as far as is known, its rules are what is active."""
        return self._firewalld.present and self._health.problem is None

    @property
    def state(self) -> FirewalldState:
        """How firewalld does, as far as is known: that it hangs shows only when it is called."""
        return self._health.state(self.present)

    def on_state_change(self, call: Callable[[], None]) -> None:
        """Call this whenever `state` may have changed."""
        self._health.on_change = call

    @property
    def unavailable_reason(self) -> str:
        """What firewalld does instead of answering; continues a sentence that begins with its name."""
        return self._health.unavailable_reason(self.present)

    @property
    def removed(self) -> int:
        """How many rules were removed so far."""
        return self._removed + self.kernel.removed

    @property
    def active_rules(self) -> int:
        """How many rules of ours are active, as far as is known."""
        return self._plan.active_count

    @property
    def refused_rules(self) -> int:
        """How many rules firewalld refused to add or to remove when that was tried last."""
        return self._plan.refused_count

    @property
    def pending(self) -> int:
        """How many rules wait to be added or to be removed."""
        return self._plan.pending_count

    @property
    def firewalld(self) -> Firewalld:
        """The connection, for reading."""
        return self._firewalld
