"""What the runner and its lanes say to each other through their pipes."""

from __future__ import annotations

import struct

__all__ = [
    "AGAIN",
    "CANCEL_ALL",
    "CANCEL_ONE",
    "DEADLINE",
    "END_KINDLY",
    "FENCED",
    "GO_ON",
    "KILL",
    "LEAVE",
    "ONE_MORE",
    "ORDER",
    "PAUSE",
    "TICKET",
]


# A batch's place in the runner's list, a task's place in it, the attempt's number, what holds
# for it, and the GPUs it may use as a mask.
TICKET = struct.Struct("<IIIIQ")


FENCED = 1  # an earlier start may live elsewhere: outputs go below `attempts/`


AGAIN = 2  # the attempt before was this runner's, too


# What a lane is told; the task it is about, where it is about one, as a ticket names it.
ORDER = struct.Struct("<cxxxII")


PAUSE, GO_ON, ONE_MORE, LEAVE = b"P", b"G", b"1", b"L"


END_KINDLY, KILL, DEADLINE, CANCEL_ALL, CANCEL_ONE = b"T", b"K", b"D", b"X", b"C"
