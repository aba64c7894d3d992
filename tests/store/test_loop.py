"""The event loop of places, and what is opened in it once."""

from __future__ import annotations

import asyncio
import os

import pytest

from umpteen.store.backends.loop import IN_FLIGHT, OpenOnce, gather, open_loop


def run_there(asking: object) -> object:
    return asyncio.run_coroutine_threadsafe(asking, open_loop()).result(20)  # type: ignore[arg-type]


def test_a_loop_is_one_for_all_and_runs() -> None:
    async def find_loop() -> object:
        return asyncio.get_running_loop()

    assert open_loop() is open_loop()
    assert run_there(find_loop()) is open_loop()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_loop_after_a_fork_is_another_and_runs() -> None:
    before = open_loop()
    child = os.fork()
    if not child:
        is_well = open_loop() is not before and run_there(asyncio.sleep(0, "well")) == "well"
        os._exit(0 if is_well else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert open_loop() is before


def test_what_many_need_at_once_is_opened_once() -> None:
    opened: list[int] = []

    async def open_it() -> int:
        await asyncio.sleep(0.01)
        opened.append(len(opened))
        return len(opened)

    once = OpenOnce(open_it)

    async def use() -> list[int]:
        return await gather(once.get, [()] * 50)

    assert asyncio.run(use()) == [1] * 50
    assert opened == [0]
    assert once.forget() == 1
    assert once.opened is None


def test_what_could_not_be_opened_is_opened_at_the_next_request() -> None:
    answers: list[str] = []

    async def open_it() -> str:
        answers.append("open")
        if len(answers) == 1:
            raise ConnectionError
        return "open"

    async def use() -> str:
        once = OpenOnce(open_it)
        with pytest.raises(ConnectionError):
            await once.get()
        return await once.get()

    assert asyncio.run(use()) == "open"


def test_gather_keeps_order_and_asks_for_some_at_once() -> None:
    under_way, most = 0, 0

    async def ask(number: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001 * (number % 3))
        under_way -= 1
        return number

    async def use() -> list[int]:
        return await gather(ask, ((number,) for number in range(100)))

    assert asyncio.run(use()) == list(range(100))
    assert most == IN_FLIGHT


def test_gather_ends_with_the_first_error() -> None:
    asked: list[int] = []

    async def ask(number: int) -> None:
        asked.append(number)
        await asyncio.sleep(0)
        if number == 3:
            raise KeyError(number)

    async def use() -> None:
        await gather(ask, ((number,) for number in range(10_000)))

    with pytest.raises(KeyError):
        asyncio.run(use())
    assert len(asked) < 1000
