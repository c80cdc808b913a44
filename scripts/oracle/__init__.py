"""Exact oracle for the quantizers: a second implementation of formats/NUMERICS.md; scripts/gen_golden.py runs it."""
