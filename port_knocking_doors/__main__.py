"""`python -m port_knocking_doors` is `port-knocking-doors`."""

from port_knocking_doors.cli import main

main()
