"""Executors: places that run batches. One file each, loaded when asked for."""
