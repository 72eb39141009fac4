"""Mutation runs: one small fault at a time in a copy of a module, and whether the unit tests notice it."""
