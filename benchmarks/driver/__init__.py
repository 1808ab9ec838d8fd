"""
The part of the benchmarks that starts, collects and reports; it never runs inside a peer's
environment.
"""
