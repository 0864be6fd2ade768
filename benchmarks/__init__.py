"""What storage costs: ours, every peer that is installed, and the same work by raw calls. Nothing here passes or fails.

`python -m benchmarks all --quick` from the project's root takes under a minute, without `--quick` under ten. Machines
are shared, so a figure means something only beside another of the same run, and a ratio between 0.7 and 1.4 from a few
rounds is a tie.
"""
