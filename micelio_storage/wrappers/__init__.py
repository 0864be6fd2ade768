"""Storages made of other storages: drivers around a driver."""
