"""Sends knocks to a host and connects through the door; nothing that the daemon needs."""
