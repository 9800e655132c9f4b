"""Benchmarks: `python -m bench [name …]`, `make bench`.

Every figure is a ratio to a floor that is measured in the same run on the same machine, so that it says something about
this code and not about the machine. `registry.py` lists them, one module holds those that share a subject.
"""
