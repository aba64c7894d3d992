"""A host that answers nonsense, or nothing for long, harms neither the job nor other hosts."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.flows.topics.test_hosts import LIMIT_S, assert_once, read_stdouts
from tests.support.command import Umpteen
from tests.support.hosts import Hosts
from tests.support.wait import wait_until

pytestmark = pytest.mark.root

# In place of ssh: for one host our own agent, whose answers are changed; for others the real one.
_SSH = """
import json, os, sys, time
config, home, *words = sys.argv[1:]
if "fake" not in words[words.index("--"):]:
    os.execvp("ssh", ["ssh", "-F", config, *words])
if "-G" in words or "-O" in words or words[-1] == "exit 0":
    sys.exit(0)
os.environ.update(HOME=home, UMPTEEN_LEASES=home)
text = sys.stdin.buffer.read(int(sys.stdin.buffer.readline()))
agent = {"__name__": "agent"}
exec(compile(text, "agent", "exec"), agent)
real, out = agent["answer"], sys.stdout.buffer
def say(text):
    out.write(text)
    out.flush()
def tell(request, found, content=b""):
    agent["send"]({"found": found, "id": request["id"], "size": len(content)}, content)
NEWS = {"records": [], "running": [], "stamps": {}, "runners": []}
def lines(name, content, *outputs):
    return [{"name": name, "offset": 0, "size": len(content), "outputs": outputs}]
RECORD = b'{"task":9999,"state":"succeeded"}\\n'
FILE = ["../../escaped", 0o100644, 1, "", True]
def own(request):
    return request["given"]["batches"][0] + "/1-aa.jsonl"
def misbehave(request):
    EVIL
def answer(request, body, lock):
    if request["call"] == "bring_news" and not request["given"]["batches"]:
        time.sleep(0.1)
        tell(request, NEWS)
    elif request["call"] == "CALL":
        try:
            misbehave(request)
        except BrokenPipeError:
            os._exit(0)
    elif request["call"] == "start":
        tell(request, "aa")
    else:
        real(request, body, lock)
agent["answer"] = answer
agent["main"]()
"""

_EVIL = {
    "nonsense where it logs in": (
        "find_own", "tell(request, {'a': 1})", "answers what cannot be",
    ),
    "nonsense of what it is": ("probe", "tell(request, [[[]]])", "answers what cannot be"),
    "results where there are none": (
        "find_store", "tell(request, {'address': '/etc', 'is_shared': True})",
        "answers what cannot be",
    ),
    "garbage": ("bring_news", "say(b'garbage\\n')", "answers what cannot be"),
    "a line without an end": (
        "bring_news", "while True: say(b'x' * (1 << 20))", "answers what cannot be",
    ),
    "nothing that can be parsed": (
        "bring_news", "say(b'[' * 1_000_000 + b'\\n')", "answers what cannot be",
    ),
    "answers to what nobody asked": (
        "bring_news", "while True: tell({'id': 10**6}, None, b'x' * 1000)",
        "answers what cannot be",
    ),
    "records of a batch that nobody has": (
        "bring_news",
        "tell(request, {**NEWS, 'records': lines('999/1-aa.jsonl', b'{}\\n')}, b'{}\\n')",
        "answers what cannot be",
    ),
    "records of a task that the batch has not": (
        "bring_news",
        "tell(request, {**NEWS, 'records': lines(own(request), RECORD)}, RECORD)",
        "answers what cannot be",
    ),
    "a file that leads elsewhere": (
        "bring_news",
        "tell(request, {**NEWS, 'records': lines(own(request), b'', [0, 't0', [FILE]])}, b'x')",
        "answers what cannot be",
    ),
    "an end, again and again": ("bring_news", "os._exit(0)", "again and again"),
}  # fmt: skip


@pytest.mark.parametrize("what", _EVIL)
def test_host_that_misbehaves_is_named_and_the_other_does_it_all(
    umpteen: Umpteen, hosts: Hosts, tmp_path: Path, what: str
) -> None:
    call, evil, reason = _EVIL[what]
    hosts.open("h1")
    home = tmp_path / "fake"
    home.mkdir()
    script = tmp_path / "ssh.py"
    script.write_text(_SSH.replace("EVIL", evil).replace("CALL", call))
    words = [sys.executable, str(script), str(hosts.config), str(home)]
    command = "hostname; while [ ! -e go ]; do sleep 0.1; done"
    umpteen.write("job.yaml", _JOB.format(command=json.dumps(command)))
    running = umpteen.start("run", "job.yaml", env={"UMPTEEN_SSH": shlex.join(words)})

    def is_named() -> bool:
        told = [host for host in read_hosts(umpteen) if host["host"] == "fake"]
        return any(host["state"] == "out" and reason in host["reason"] for host in told)

    try:
        wait_until(is_named, LIMIT_S)
        for go in hosts.folder.glob("h1/disk/home"):
            (go / "tester/go").touch()
        _, said = running.communicate(timeout=LIMIT_S)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 0, said
    assert_once(umpteen, 8)
    assert set(read_stdouts(umpteen)) == {"h1\n"}
    assert not list(umpteen.folder.rglob("escaped"))


_JOB = """name: job
executor: {{ssh: {{hosts: [fake, h1], patience: 600}}}}
tasks:
  - name: t{{n}}
    command: {command}
    cwd: /home/tester
    matrix: {{n: 0..7}}
"""


def read_hosts(umpteen: Umpteen) -> list[dict[str, Any]]:
    """How the head says that each host is."""
    found: list[dict[str, Any]] = []
    for path in umpteen.leases.glob("*/hosts.json"):
        found += json.loads(path.read_text())
    return found
