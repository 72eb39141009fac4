"""The state of firewalld, as far as is known, and the log lines about it: one for each incident."""

from collections.abc import Callable
from typing import NamedTuple

from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall import polkit
from port_knocking_doors.firewall.error_codes import INVALID_ZONE, NO_SUCH_CHAIN
from port_knocking_doors.model import FirewalldState
from port_knocking_doors.system import firewalld_service
from port_knocking_doors.system.log import LogEvent, event_fields, logger

_FIRST_RETRY, _LAST_RETRY = 0.05, 5.0
"""Seconds between attempts while firewalld answers with errors: it does so for a moment while it starts."""


class FirewalldHealth:
    """What the calls to firewalld have shown. That it hangs shows only when it is called."""

    def __init__(self) -> None:
        self._is_silent = False
        self._failures = 0
        self._reported: set[tuple[str, str]] = set()
        self.problem: FirewalldState | None = None
        """`FAILED` or `FLUSHED`: firewalld answers, and what it says is not what is active."""
        self.on_change: Callable[[], None] = lambda: None
        """Called whenever the state may have changed."""

    def state(self, present: bool) -> FirewalldState:
        """`present`: whether firewalld is on the bus."""
        if not present:
            return FirewalldState.ABSENT
        if self._is_silent:
            return FirewalldState.HUNG
        if self.problem is not None:
            return self.problem
        return FirewalldState.REFUSING if self._failures else FirewalldState.PRESENT

    def unavailable_reason(self, present: bool) -> str:
        """What firewalld does instead of answering; continues a sentence that begins with its name."""
        if not present:
            return "is not running"
        if self.problem is not None:
            return _PROBLEMS[self.problem].brief
        return "refuses" if self._failures else "does not answer"

    # What happened. --------------------------------------------------------------------------------------------------

    def on_disappeared(self) -> None:
        """firewalld left the bus."""
        if not self._is_silent:
            logger.warning("firewalld has stopped: doors stay pending until it is back", extra=_fields("gone"))
        self._is_silent = True
        self.on_change()

    def on_reloaded(self, rules: int) -> None:
        """firewalld was reloaded, which took so many rules."""
        logger.info("firewalld was reloaded: restoring %d rules", rules, extra=_fields("reloaded"))

    def on_answer(self) -> None:
        """firewalld answered a call."""
        if self._is_silent:
            logger.info("firewalld answers", extra=_fields("answers"))
        self._is_silent = False
        self.on_change()

    def on_silence(self) -> None:
        """firewalld has not answered a call in time."""
        if not self._is_silent:
            logger.warning("firewalld does not answer: doors stay pending until it does", extra=_fields("hung"))
        self._is_silent = True
        self.on_change()

    def on_readable(self) -> None:
        """The rules could be read."""
        self._failures = 0
        self.on_change()

    def on_error(self, error: FirewallError) -> float:
        """firewalld answered a question with an error. The result is how many seconds to wait before the next try."""
        # A zone that is gone needs no line: the zones are read again.
        if not self._failures and error.code != INVALID_ZONE:
            logger.error("firewalld: %s%s", error, polkit.remedy(error), extra=_fields(error))
        self._failures += 1
        self.on_change()
        return float(min(_FIRST_RETRY * 2**self._failures, _LAST_RETRY))

    def on_refused(self, adds: bool, place: str, error: FirewallError) -> None:
        """firewalld refused a change. One line for each place and reason: the change is tried again at every check."""
        if (place, error.code) not in self._reported:
            self._reported.add((place, error.code))
            what = "adding" if adds else "removing"
            text = f"zone {place}: {what} a rule failed: firewalld says: {error}{polkit.remedy(error)}"
            if NO_SUCH_CHAIN in text:
                text += f": another program has changed firewalld's tables: run `{RESTART}`"
            logger.error("%s", text, extra=_fields(error, zone=place))

    def on_problem(self, problem: FirewalldState | None) -> None:
        """firewalld's rules are not what is active (`FAILED`, `FLUSHED`), or are (None). One line for each change."""
        if problem is not self.problem and problem is not None:
            logger.error("firewalld %s: %s", *_PROBLEMS[problem][:2], extra=_fields(problem.value))
        elif problem is not self.problem:
            logger.info("firewalld's rules are active again", extra=_fields("active again"))
        self.problem = problem
        self.on_change()

    def on_leftovers(self, rules: int | None) -> None:
        """firewalld started on top of so many rules of ours that it does not know; None: it may have."""
        if rules is None:
            text = (
                "firewalld was restarted while doors were open, and this release may keep old rules in the kernel "
                "(to verify that, this process needs CAP_NET_ADMIN)"
            )
        else:
            text = f"firewalld has started and left {_rules(rules)} of its last run active in the kernel"
        again = "reloading firewalld to remove them; runtime settings of other programs are put back"
        logger.warning("%s: %s", text, again, extra=_fields("left", count=rules))

    def on_reload_failed(self, error: FirewallError) -> None:
        """firewalld could not be reloaded."""
        remedy = polkit.remedy(error) or f": run `{RELOAD}`"
        logger.error("firewalld: reload failed: %s%s", error, remedy, extra=_fields(error))

    def on_left(self, rules: int) -> None:
        """So many rules of ours are active that firewalld does not know."""
        text = "%s of ours in the kernel are unknown to firewalld, so that doors are not closed: run `%s`"
        logger.error(text, _rules(rules), RELOAD, extra=_fields("left", count=rules))

    def on_kept_by_failed(self, rules: int) -> None:
        """firewalld failed to start, and so many rules of doors are active in the kernel."""
        text = "firewalld has failed and left %s of doors active in the kernel: doors are not closed until it is mended"
        logger.error(text, _rules(rules), extra=_fields("left", count=rules))

    def on_doors_left(self, rules: int | None) -> None:
        """firewalld ended, and so many rules of doors are active in the kernel; None: that is unknown."""
        if rules:
            logger.error("%s", left_line(rules), extra=_fields("left", count=rules))

    def on_added(self) -> None:
        """A rule was added: refusals are reported again from now on."""
        self._reported.clear()


class _Problem(NamedTuple):
    brief: str
    """Continues a sentence that begins with firewalld's name."""
    remedy: str


RELOAD = "firewall-cmd --reload"
RESTART = "systemctl restart firewalld"
"""Brings back tables that were flushed. A reload of firewalld 1.3 fails then, and leaves every packet dropped."""
_PROBLEMS = {
    FirewalldState.FAILED: _Problem(
        "is in the state FAILED, so its configuration is not active",
        "ports may be open without a knock, and no door opens: run `firewall-cmd --check-config`, mend what it names, "
        "then `systemctl restart firewalld`",
    ),
    FirewalldState.FLUSHED: _Problem(
        "has lost its rules in the kernel (nft flush ruleset?)",
        f"every port is open without a knock, and no door opens: run `{RESTART}`",
    ),
}


def remedy(state: FirewalldState) -> str:
    """For a state in which firewalld answers and its rules are not active: what to do; empty for every other."""
    return _PROBLEMS[state].remedy if state in _PROBLEMS else ""


UNVERIFIED = (
    "firewalld is not running: doors count as closed with it, which cannot be verified without CAP_NET_ADMIN: "
    "`nft list table inet firewalld`, as root, shows what is still active"
)


def left_line(rules: int) -> str:
    """The line for doors that are open while firewalld does not run."""
    return (
        f"doors are not closed: firewalld is not running and left {_rules(rules)} of doors active in the kernel "
        f"(CleanupOnExit=no, or it was killed): {firewalld_service.remedy()}"
    )


def _rules(count: int) -> str:
    return "1 rule" if count == 1 else f"{count} rules"


def _fields(reason: object, **more: object) -> dict[str, object]:
    return event_fields(LogEvent.FIREWALLD, reason=reason, **more)


def pending_line(reason: str, present: bool) -> str:
    """The log line while doors wait for firewalld. `reason`: as of `FirewalldHealth.unavailable_reason`."""
    if present:
        return f"firewalld {reason}: accepting knocks, doors stay pending"
    absent = reason if firewalld_service.is_installed() else "is not installed"
    return f"firewalld {absent}: accepting knocks, no door opens until firewalld runs: {firewalld_service.remedy()}"
