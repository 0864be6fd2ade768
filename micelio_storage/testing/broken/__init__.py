"""Drivers that are broken on purpose, a module for each theme of the kit."""
