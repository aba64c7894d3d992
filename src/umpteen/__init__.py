"""Run umpteen shell commands anywhere, and keep every output."""

from umpteen._version import __version__

__all__ = ["__version__"]
