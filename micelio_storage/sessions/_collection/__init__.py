"""The removal of what no snapshot needs."""
