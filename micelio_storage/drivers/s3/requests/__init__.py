"""The two roads to the store: our own for plain requests, the SDK's for all else."""
