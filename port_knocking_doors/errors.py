"""The errors that are reported to a user, as one small family.

The command line turns each into one line on standard error and the exit status of its class; anything that is not
a `DoorsError` is a bug. No message may show a sequence: say how many ports it has, or which of them is wrong.
"""


class DoorsError(Exception):
    """A failure that the user can mend; the text is one line and names it."""

    exit_status = 1


def in_words(error: OSError) -> str:
    """The system's text for an error, as a part of one line: without the number, and with the file if one is named."""
    if not error.strerror:
        return str(error) or type(error).__name__
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


class ConfigError(DoorsError):
    """Wrong usage or configuration: the text is `WHERE: PROBLEM, expected …`.

    `where` is `FILE:LINE`, `FILE`, an option such as `--ports`, or an environment variable's name. A reader of single
    values does not know it and leaves it empty; the reader's caller adds it with `at`.
    """

    exit_status = 2

    def __init__(self, problem: str, where: str = "", field: str = "") -> None:
        super().__init__(f"{where}: {problem}" if where else problem)
        self.problem = problem
        self.where = where
        self.field = field
        """The field of `Settings` that is wrong, for a caller that knows where it came from."""

    def at(self, where: str) -> "ConfigError":
        """The same problem with its place, unless it has one already."""
        return self if self.where else type(self)(self.problem, where, self.field)


class ListenError(ConfigError):
    """A knock port cannot be listened on."""


class PortInUseError(ListenError):
    """Another program uses a knock port: what ends with that program."""


class AlreadyRunningError(DoorsError):
    """Another process holds the same mark of ownership: a daemon (two would close each other's doors), or a closer."""

    def __init__(self, text: str, *, by_daemon: bool) -> None:
        super().__init__(text)
        self.by_daemon = by_daemon


class NoDaemonError(DoorsError):
    """The daemon cannot be reached: none runs with this mark, or, if `forbidden`, this user has no permission."""

    def __init__(self, text: str, *, forbidden: bool = False) -> None:
        super().__init__(text)
        self.forbidden = forbidden


class NotDoneError(DoorsError):
    """The daemon answered that a request failed; `exit_status` is that of its answer."""

    def __init__(self, problem: str, exit_status: int) -> None:
        super().__init__(problem)
        self.exit_status = exit_status


class FirewallError(DoorsError):
    """firewalld is not running, does not answer, or answered with an error.

    `code` is firewalld's name of the error (`INVALID_ZONE`, …: the text of its D-Bus errors up to the colon), or empty.
    """

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.code = code


class CaptureError(DoorsError):
    """Packets cannot be captured, mostly because a capability is missing."""


class LineGoneError(DoorsError):
    """A line of one-time sequences does not exist any more: another process used it, or the file was edited."""


class DoorClosedError(DoorsError):
    """The client knocked, and the port did not answer."""

    exit_status = 3


class UnknownHostError(DoorsError):
    """The client's host has no address, or none of the family asked for."""

    exit_status = 4


class NotPermittedError(DoorsError):
    """This user may not send what a step needs."""

    exit_status = 5


class SandboxError(DoorsError):
    """The throw-away hosts of the demo and the tests cannot be made on this machine."""
