"""What the runner and its lanes say to each other through their pipes, and the bytes of each.

The only module that knows these bytes. Tickets and orders go to the lanes, and have a fixed size;
messages go to the runner, a line each. All of it is between processes of one version on one
machine, and never on a disk. Standard library alone.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Union

from umpteen.model.record import Record
from umpteen.model.states import NUMBER_OF

__all__ = [
    "ORDERS_BYTES",
    "TICKET_BYTES",
    "AttemptEnded",
    "AttemptKept",
    "Message",
    "Order",
    "OrderKind",
    "StoreRefused",
    "TaskKey",
    "TasksDeclined",
    "Ticket",
    "decode_message",
    "decode_orders",
    "encode_declined",
    "encode_ended",
    "encode_kept",
    "encode_refused",
]

_TICKET = struct.Struct("<IIIIQ")
_ORDER = struct.Struct("<cxxxII")
TICKET_BYTES = _TICKET.size
ORDERS_BYTES = _ORDER.size * 64  # whole orders, as many as are read at once
_FENCED, _AGAIN = 1, 2
_ENDED, _KEPT, _REFUSED, _DECLINED = b"ended", b"kept", b"refused", b"declined"
_DECLINED_AT_ONCE = 150  # tasks in one message, so that it stays below PIPE_BUF
_REFUSED_MOST = 1000  # characters, for the same reason

# A task: the place of its batch in the runner's list, and its own place in that batch.
TaskKey = tuple[int, int]


# --- to the lanes -------------------------------------------------------------------------


class Ticket(NamedTuple):
    """One task to start; whichever lane has a free slot takes it."""

    ordinal: int  # the batch's place in the runner's list
    position: int  # the task's place in the batch
    attempt: int  # its number, from 1 on
    is_fenced: bool  # an earlier start may live elsewhere: outputs go below `attempts/`
    is_again: bool  # this runner made the attempt before, too
    devices: int  # the GPUs that it may use, as a mask of places in Capacity.gpus

    @property
    def key(self) -> TaskKey:
        """Which task it is for."""
        return self.ordinal, self.position

    def encode(self) -> bytes:
        """What goes into the pipe."""
        ordinal, position, attempt, is_fenced, is_again, devices = self
        flags = _FENCED * is_fenced | _AGAIN * is_again
        return _TICKET.pack(ordinal, position, attempt, flags, devices)

    @classmethod
    def decode(cls, content: bytes) -> Ticket:
        """The ticket that was encoded."""
        ordinal, position, attempt, flags, devices = _TICKET.unpack(content)
        return cls(ordinal, position, attempt, bool(flags & _FENCED), bool(flags & _AGAIN), devices)


class OrderKind(enum.Enum):
    """What a lane is ordered to do. Whoever started the runner orders it by the same letters."""

    PAUSE = b"P"  # start nothing more until GO_ON
    GO_ON = b"G"  # start tasks again; from a launcher: go on without it
    ONE_MORE = b"1"  # start one task, though paused
    LEAVE = b"L"  # take no more tickets, and let what runs end by itself
    END_KINDLY = b"T"  # end what runs: SIGTERM, and SIGKILL after its grace
    KILL = b"K"  # end what runs at once
    DEADLINE = b"D"  # as END_KINDLY, because the job's time is over
    CANCEL_ALL = b"X"  # as END_KINDLY, because the job was cancelled
    CANCEL_ONE = b"C"  # end one task, or never start it


class Order(NamedTuple):
    """One order to a lane."""

    kind: OrderKind
    key: TaskKey = (0, 0)  # the task that it is about, where it is about one

    def encode(self) -> bytes:
        """What goes into the pipe."""
        return _ORDER.pack(self.kind.value, *self.key)


def decode_orders(content: bytes) -> list[Order]:
    """The orders that were encoded, one behind the other."""
    return [
        Order(OrderKind(letter), (ordinal, position))
        for letter, ordinal, position in _ORDER.iter_unpack(content)
    ]


# --- to the runner ------------------------------------------------------------------------


class AttemptEnded(NamedTuple):
    """An attempt is over, and its files are complete."""

    key: TaskKey
    state: int  # its number in STATES
    seconds: float  # how long it took
    exit_status: int  # as `subprocess` has it: minus the signal where one ended it
    record: bytes  # its line for the records file, without the end of the line


class AttemptKept(NamedTuple):
    """An attempt is over, and its files could not be completed: it is kept, and not recorded."""

    record: bytes


class StoreRefused(NamedTuple):
    """A lane could not write into the store, and tries again."""

    trouble: str


class TasksDeclined(NamedTuple):
    """Tasks that were cancelled, and that this lane does not run and will never start."""

    keys: list[TaskKey]


Message = Union[AttemptEnded, AttemptKept, StoreRefused, TasksDeclined]


def encode_ended(key: TaskKey, exit_status: int, record: Record) -> bytes:
    """An AttemptEnded as a line."""
    head = b"ended %d %d %d %.4f %d " % (*key, NUMBER_OF[record.state], record.seconds, exit_status)
    return head + record.to_line().encode() + b"\n"


def encode_kept(record: Record) -> bytes:
    """An AttemptKept as a line."""
    return b"kept " + record.to_line().encode() + b"\n"


def encode_refused(trouble: str) -> bytes:
    """A StoreRefused as a line."""
    shown = " ".join(trouble[:_REFUSED_MOST].splitlines())  # a path may hold a line's end
    return b"refused " + shown.encode(errors="replace") + b"\n"


def encode_declined(keys: Iterable[TaskKey]) -> Iterator[bytes]:
    """TasksDeclined as lines, each short enough to be written as one."""
    pairs = [b"%d:%d" % key for key in keys]
    for start in range(0, len(pairs), _DECLINED_AT_ONCE):
        yield b"declined " + b",".join(pairs[start : start + _DECLINED_AT_ONCE]) + b"\n"


def decode_message(line: bytes) -> Message:
    """What a line, without its end, says."""
    kind, _, rest = line.partition(b" ")
    if kind == _ENDED:
        ordinal, position, state, seconds, exit_status, record = rest.split(b" ", 5)
        key = int(ordinal), int(position)
        return AttemptEnded(key, int(state), float(seconds), int(exit_status), record)
    if kind == _KEPT:
        return AttemptKept(rest)
    if kind == _REFUSED:
        return StoreRefused(rest.decode(errors="replace"))
    assert kind == _DECLINED, line
    pairs = (pair.split(b":") for pair in rest.split(b","))
    return TasksDeclined([(int(ordinal), int(position)) for ordinal, position in pairs])
