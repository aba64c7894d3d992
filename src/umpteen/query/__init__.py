"""Jobs read back: how they stand, why, and what their tasks left.

It reads stores and asks executors, and changes neither.
"""
