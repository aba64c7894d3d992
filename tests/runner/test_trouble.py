"""What is refused is waited for, but not for ever."""

from __future__ import annotations

import time

from umpteen.runner.trouble import Trouble


def test_trouble_is_lost_only_after_its_patience() -> None:
    trouble = Trouble(10.0)
    assert (bool(trouble), trouble.is_lost(time.monotonic() + 99)) == (False, False)
    trouble.begin("no space", "make room")
    assert trouble
    assert not trouble.is_lost(time.monotonic() + 9)
    assert trouble.is_lost(time.monotonic() + 11)


def test_trouble_that_is_final_is_lost_at_once_until_it_ends() -> None:
    trouble = Trouble(10.0)
    trouble.begin("damaged", is_final=True)
    trouble.begin("damaged, again")
    assert trouble.is_lost(time.monotonic())
    trouble.end()
    assert not trouble.is_lost(time.monotonic() + 99)
    assert trouble.text == "damaged, again"
