"""Executors: places that run batches. One file or folder each, loaded when asked for.

`base` is the contract, `registry` finds an executor by its name.
"""
