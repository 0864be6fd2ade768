"""What our local storage costs beside the same work done by hand, for people to read: nothing here passes or fails.

`python -m benchmarks --quick` from the project's root. The machine is shared, so only the ratios say anything, and a
ratio between 0.7 and 1.4 from a few rounds is a tie.
"""
