"""The kit's promises, a module for each theme."""
