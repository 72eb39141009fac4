"""Sends knocks to a host; nothing here is needed by the daemon."""
