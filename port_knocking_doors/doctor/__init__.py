"""Finds out why a knock opens nothing: a module for each subject, run by `examine`; nothing here changes anything."""
