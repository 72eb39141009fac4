"""Port knocking for servers with firewalld."""

__version__ = "2.0.0.dev0"
