"""Measurements on the real thing; a report, not a test."""
