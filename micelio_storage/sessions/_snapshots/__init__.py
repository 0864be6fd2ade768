"""Snapshots of a session, in packs: what they are made from, what they are good for."""
