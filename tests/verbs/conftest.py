"""Jobs for an executor that has what is submitted to it, and runs nothing."""

from __future__ import annotations

from tests.submission.conftest import address

__all__ = ["address"]
