"""Speaks to the agent on one host: a method for each of its calls, whose answers are checked."""

from __future__ import annotations

import concurrent.futures
import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, TypeVar

from umpteen.executors.ssh.hosts import Host
from umpteen.executors.zipapp import build_compiled_zipapp
from umpteen.model.agent_messages import (
    HostCopy,
    HostItem,
    HostRunner,
    News,
    NewsRequest,
    Probe,
    RunnerReport,
    StorePlace,
    check_news,
    parse_copies,
    parse_host_runners,
    parse_items,
    parse_news,
    parse_place,
    parse_probe,
    parse_reports,
)
from umpteen.model.forms import FormError, list_of, text, token, truth
from umpteen.store.identity import Identity
from umpteen.system.host_agent import PART_BYTES
from umpteen.system.openssh import Answer, HostConnection, HostError, Login, NonsenseError, connect

__all__ = ["RemoteAgent"]

_LIMIT_S = 120.0  # of a call; a host may be busy
_CLEAN_S = 3600.0  # for the removal of copies of jobs
_TRIPS = 3
_MODULE = "umpteen.runner.agent"
_AT_ONCE = 4  # parts of a file that are asked for before the first has come

_Found = TypeVar("_Found")


class RemoteAgent:
    """An agent that knows our calls.

    Each raises HostError where the host is not reached, NonsenseError where it answers what cannot
    be, and OSError where the call failed there.
    """

    def __init__(self, host: Host, *, is_quiet: bool = False) -> None:
        """Log in, and have the runner there. is_quiet: nothing is asked at the terminal."""
        self.host = host
        login = Login(host.identity_file, python=host.python, is_quiet=is_quiet)
        self._connection: HostConnection = connect(host.destination, login)
        self.folder = self._send_runner()

    def _send_runner(self) -> str:
        packed = build_compiled_zipapp()
        name = self._runner = f"runner-{packed.digest}.zip"
        found = self._ask("find_own", above=self.host.folder, name=name).found
        try:
            folder, is_there = text(found[0]), truth(found[1])
        except (TypeError, LookupError, FormError) as error:
            raise self._say_nonsense(error) from error
        path = f"{folder}/{name}"
        if not is_there:
            self._send_whole(io.BytesIO(packed.content), path)
        self._ask("load", path=path, module=_MODULE)
        return folder

    def close(self) -> None:
        """Have the agent end."""
        self._connection.close()

    # --- the host and the job's files -----------------------------------------------------------

    def probe(self) -> Probe:
        """What the host is and has."""
        return self._parse(parse_probe, self._ask("probe"))

    def measure_trip(self) -> float:
        """Seconds from a small question to its answer: the least of some."""
        found = []
        for _ in range(_TRIPS):
            asked_s = time.perf_counter()
            self.has(self.folder, [])
            found.append(time.perf_counter() - asked_s)
        return min(found)

    def find_store(
        self, addresses: Sequence[str], store: Identity, word: str, environment: Mapping[str, str]
    ) -> StorePlace:
        """Where the job's files are for it. word: of a copy that it may have; as of the agent."""
        answer = self._ask(
            "find_store", addresses=list(addresses), store_id=store.id, word=word,
            environment=dict(environment),
        )  # fmt: skip
        place = self._parse(parse_place, answer)
        if place.is_shared and place.address not in addresses:
            raise self._say_nonsense("the results are where nobody said")
        return place

    def put(self, folder: str, files: Sequence[tuple[str, bytes]], private: str = "") -> None:
        """Put files whole below a folder there: paths and contents. private: for its user alone."""
        told = [(key, len(content), key == private) for key, content in files]
        body = b"".join(content for _, content in files)
        self._ask("put", body, folder=folder, files=told)

    def has(self, folder: str, keys: Sequence[str]) -> list[bool]:
        """Whether each of these files or folders is there."""
        answer = self._ask("has", folder=folder, keys=list(keys))
        found = self._parse(lambda value: list_of(truth, value), answer)
        if len(found) != len(keys):
            raise self._say_nonsense("too few answers")
        return found

    def send_file(self, folder: str, key: str, path: str) -> None:
        """Put a file of ours there, in parts."""
        with open(path, "rb") as source:
            self._send_whole(source, f"{folder}/{key}")

    def _send_whole(self, source: BinaryIO, target: str) -> None:
        new = f"{target}.{os.urandom(4).hex()}.new"
        is_first = True
        while (part := source.read(PART_BYTES)) or is_first:
            self._ask("write_part", part, path=new, is_first=is_first, is_private=True)
            is_first = False
        self._ask("give_name", path=new, target=target, is_new=False)

    def fetch_file(self, source: str, size: int, path: str) -> None:
        """Write a file of so many bytes here. Raises OSError where that cannot be written, and
        FileNotFoundError where it cannot be read there, or is shorter by now.
        """
        asked: list[concurrent.futures.Future[Answer]] = []
        offsets = iter(range(0, size, PART_BYTES))
        with open(path, "xb") as target:
            while True:
                while len(asked) < _AT_ONCE and (offset := next(offsets, None)) is not None:
                    wanted = min(PART_BYTES, size - offset)
                    asked.append(
                        self._connection.ask("read", path=source, offset=offset, size=wanted)
                    )
                if not asked:
                    break
                try:
                    content = self._wait(asked.pop(0)).content
                except OSError as error:
                    raise FileNotFoundError(2, error.strerror, source) from error
                expected = min(PART_BYTES, size - target.tell())
                if len(content) > expected:
                    raise self._say_nonsense("a part of a file is larger than it was asked for")
                if len(content) < expected:
                    raise FileNotFoundError(2, "it is shorter than it was", source)
                target.write(content)

    def read_on(self, path: str, offset: int, most: int) -> tuple[int, bytes]:
        """What a file that grows has from an offset on, 0 where it is shorter: where, and what.

        Raises FileNotFoundError.
        """
        size = self._ask("measure", path=path).found
        if not isinstance(size, int):
            raise self._say_nonsense("no size")
        start = offset if size >= offset else 0
        if size == start:
            return start, b""
        return start, self._ask("read", path=path, offset=start, size=most).content[:most]

    # --- runners ----------------------------------------------------------------------------------

    def start(
        self,
        folder: str,
        store: Identity,
        batches: Sequence[str],
        slots: int,
        options: Sequence[str],
        environment: Mapping[str, str],
    ) -> str:
        """Start a runner; its token."""
        answer = self._ask(
            "start", folder=folder, store_id=store.id, batches=list(batches), slots=slots,
            options=list(options), environment=dict(environment),
        )  # fmt: skip
        return self._parse(token, answer)

    def give(self, runner: str, number: int, batches: Sequence[str]) -> RunnerReport:
        """Have a runner have these batches unopened; what it answers."""
        answer = self._ask("give", token=runner, number=number, batches=list(batches))
        return self._parse(lambda found: parse_reports([found])[0], answer)

    def wake(self, runners: Sequence[str]) -> None:
        """Have them look at marks now."""
        self._ask("wake", tokens=list(runners))

    def list_runners(self, folder: str, store: Identity) -> list[RunnerReport]:
        """Those of a job that live there."""
        return self._parse(
            parse_reports, self._ask("list_runners", folder=folder, store_id=store.id)
        )

    def list_all_runners(self) -> list[HostRunner]:
        """Those of any job that live there."""
        return self._parse(parse_host_runners, self._ask("list_all_runners"))

    def bring(self, request: NewsRequest) -> News:
        """What is new there."""
        answer = self._ask("bring_news", **request._asdict())
        news = self._parse(lambda found: parse_news(found, answer.content), answer)
        self._parse(lambda _: check_news(news, request), answer)
        return news

    def drop(self, folder: str, name: str, first: int, last: int) -> None:
        """Remove there what is here: what the records between two offsets vouch for."""
        self._ask("drop", folder=folder, name=name, first=first, last=last)

    def forget(self, folder: str) -> None:
        """Remove the copy of a job there."""
        self._ask("forget", folder=folder)

    def list_copies(self) -> list[HostCopy]:
        """The copies of jobs that are kept there."""
        return self._parse(parse_copies, self._ask("list_copies"))

    def clean_up(self, older_s: float, *, is_all: bool, is_dry: bool) -> list[HostItem]:
        """Remove there what nobody needs; as the agent has it."""
        asked = self._connection.ask(
            "clean_up", keep=self._runner, older_s=older_s, is_all=is_all, is_dry=is_dry
        )
        return self._parse(parse_items, self._wait(asked, _CLEAN_S))

    # --- messages ---------------------------------------------------------------------------------

    def _ask(self, call: str, body: bytes = b"", **given: Any) -> Answer:
        return self._wait(self._connection.ask(call, body, **given))

    def _wait(self, asked: concurrent.futures.Future[Answer], limit_s: float = _LIMIT_S) -> Answer:
        try:
            return asked.result(limit_s)
        except concurrent.futures.TimeoutError:
            self._connection.drop()
            name = self.host.name
            raise HostError(f"{name} does not answer", is_transient=True) from None

    def _parse(self, parse: Callable[[Any], _Found], answer: Answer) -> _Found:
        try:
            return parse(answer.found)
        except FormError as error:
            raise self._say_nonsense(error) from error

    def _say_nonsense(self, why: object) -> NonsenseError:
        self._connection.drop()
        return NonsenseError(self.host.name, str(why))
