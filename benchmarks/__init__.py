"""The side-by-side benchmark suite: ``python -m benchmarks``. See docs/benchmarks.md.

Rule of this package: contenders are processes of their own that are only told what to read and where to write; the
suite watches them from outside, in the same way for all, and no figure is kept of a run whose outputs are wrong.
"""
