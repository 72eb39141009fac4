"""`python -m port_knocking_doors` is `port-knocking-doors`."""

from .cli import main

main()
