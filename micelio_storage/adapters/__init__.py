"""What frameworks expect of a storage, on top of ours: one module for each, with an extra of the same name.

Each imports its framework at its top, so importing the library imports none.
"""
