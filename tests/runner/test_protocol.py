"""What lanes and runner say to each other comes out of the pipe as it went in."""

from __future__ import annotations

import pytest

from umpteen.model.record import Record
from umpteen.model.states import NUMBER_OF
from umpteen.runner.lanes.protocol import (
    TICKET_BYTES,
    AttemptEnded,
    AttemptKept,
    Order,
    OrderKind,
    StoreRefused,
    TasksDeclined,
    Ticket,
    decode_message,
    decode_orders,
    encode_declined,
    encode_ended,
    encode_kept,
    encode_refused,
)

PIPE_BUF = 4096  # what is longer could be mixed with what another lane writes
RECORD = Record(task=7, digest="d", attempt=2, state="failed", exit_code=3, seconds=1.25)


@pytest.mark.parametrize("is_fenced", [False, True])
@pytest.mark.parametrize("is_again", [False, True])
def test_ticket_comes_out_as_it_went_in(is_fenced: bool, is_again: bool) -> None:
    ticket = Ticket(3, 4000, 2, is_fenced, is_again, 1 << 63)
    content = ticket.encode()
    assert (len(content), Ticket.decode(content), ticket.key) == (TICKET_BYTES, ticket, (3, 4000))


def test_orders_come_out_in_their_order() -> None:
    orders = [Order(kind, (number, 5)) for number, kind in enumerate(OrderKind)]
    assert decode_orders(b"".join(order.encode() for order in orders)) == orders


def test_ended_attempt_has_what_the_runner_needs_beside_its_record() -> None:
    line = encode_ended((1, 2), -9, RECORD)
    assert line.endswith(b"}\n")
    ended = decode_message(line[:-1])
    assert ended == AttemptEnded((1, 2), NUMBER_OF["failed"], 1.25, -9, RECORD.to_line().encode())


def test_kept_attempt_has_its_record() -> None:
    assert decode_message(encode_kept(RECORD)[:-1]) == AttemptKept(RECORD.to_line().encode())


@pytest.mark.parametrize("trouble", ["No space left on device: /a b", "é" * 5000, "\udcff"])
def test_refusal_is_one_short_line(trouble: str) -> None:
    line = encode_refused(trouble)
    assert len(line) <= PIPE_BUF
    assert line.count(b"\n") == 1
    refused = decode_message(line[:-1])
    assert isinstance(refused, StoreRefused)
    assert refused.trouble[:100] == trouble[:100].encode(errors="replace").decode()


def test_many_declined_tasks_come_in_short_lines() -> None:
    keys = [(2**32 - 1, number) for number in range(1000)]
    lines = list(encode_declined(keys))
    assert max(map(len, lines)) <= PIPE_BUF
    found = [decode_message(line[:-1]) for line in lines]
    assert all(isinstance(each, TasksDeclined) for each in found)
    assert [key for each in found if isinstance(each, TasksDeclined) for key in each.keys] == keys


def test_refusal_of_a_path_with_a_line_end_is_one_line() -> None:
    line = encode_refused("No space left on device: a\nb\r\nc")
    assert decode_message(line[:-1]) == StoreRefused("No space left on device: a b c")
    assert line.count(b"\n") == 1
