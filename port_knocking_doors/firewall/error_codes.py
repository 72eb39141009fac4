"""The codes of `FirewallError`: firewalld's own (firewall/errors.py) and those of the way to it."""

UNREACHABLE = "UNREACHABLE"
"""There is no bus, or no firewalld on it."""
UNANSWERED = "UNANSWERED"
"""firewalld is on the bus and has not answered in time."""
NOT_AUTHORIZED = "NOT_AUTHORIZED"
"""firewalld or the bus denied the call to this user."""

ALREADY_ENABLED = "ALREADY_ENABLED"
NOT_ENABLED = "NOT_ENABLED"
INVALID_ZONE = "INVALID_ZONE"
INVALID_RULE = "INVALID_RULE"

NO_ANSWER = frozenset({UNREACHABLE, UNANSWERED})
"""With these it is unknown whether firewalld did what it was asked for."""

NO_SUCH_CHAIN = "No such file or directory"
"""In firewalld's text where a chain or a rule of its own is not in the kernel: the kernel's ENOENT."""
