"""What an administrator can do where polkit does not let this user change the firewall."""

import os
import pwd

from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall.error_codes import NOT_AUTHORIZED

MANUAL = "port-knocking-doors-server(8)"
SERVICE_USER = "port-knocking-doors"
POLKIT_RULES = "/etc/polkit-1/rules.d"
"""The folder of an administrator's rules; a package has its own in /usr/share/polkit-1/rules.d."""


def remedy(error: FirewallError) -> str:
    """What to add to a message about the error; empty where the error is another one."""
    if error.code != NOT_AUTHORIZED:
        return ""
    user = _user()
    if "(uid)" in str(error):  # firewalld found no polkit to ask, and wants root
        return f": polkit is not running, so user {user} may not change the firewall: install and start polkit"
    rule = f"{POLKIT_RULES}/50-port-knocking-doors.rules"
    if user == SERVICE_USER:
        return f": polkit denies user {user} to change the firewall: install {rule} ({MANUAL})"
    return (
        f": polkit denies user {user} to change the firewall: run as root, or as user {SERVICE_USER}, "
        f"which {rule} allows ({MANUAL})"
    )


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
