"""What becomes of objects when something breaks: the same trials for us and for those who do the same work.

`python -m benchmarks.faults` runs them. A trial is a row, and what breaks (disks, servers, connections, processes) is
here once for all libraries. What a library does runs in a child process, so that its crash is nobody else's.
"""
