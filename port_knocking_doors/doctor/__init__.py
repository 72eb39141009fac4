"""Finds out why a knock opens nothing; each module checks one thing and changes nothing, `examine` runs them all."""
