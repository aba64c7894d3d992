"""The part of umpteen that travels, as one file for machines that have only `python3`.

An ordinary zip file, the same bytes for the same version, so that its digest names it. For
engines it is put into the text of a module, `runner.engine_worker`, that starts the runner.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import os
import zipfile
from typing import NamedTuple

__all__ = ["Carrier", "TRAVELS", "Zipapp", "build_carrier", "build_zipapp"]

# Modules of this package that the runner is made of: standard library alone, Python 3.9.
TRAVELS = (
    "_version errors model model.archive model.command model.dependencies model.forms "
    "model.names model.ranges model.record model.states runner runner.active_batch "
    "runner.active_batches runner.arguments runner.batch_loader runner.batch_start "
    "runner.cancellation runner.completions runner.dispatcher runner.heartbeat "
    "runner.import_batch runner.lanes runner.lanes.command runner.lanes.group "
    "runner.lanes.lane runner.lanes.protocol runner.launch runner.lease runner.leftovers "
    "runner.live_output runner.loop runner.main runner.recorder runner.retries "
    "runner.scheduler runner.synced runner.uploader runner.uploads runner.upstream "
    "runner.workload store store.address store.backends store.backends.base "
    "store.backends.fsspec store.backends.s3 store.backends.sftp store.base store.batch_file "
    "store.directory store.identity store.job_files store.layout store.owners store.recorded "
    "store.records store.remote store.segments store.status_codes store.submission_lock "
    "system system.background system.children system.host system.locks system.plain_files "
    "system.processes system.resources system.spawn system.stop_signals system.streams "
    "system.terminal"
).split()

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip file knows


class Zipapp(NamedTuple):
    """A zip file, and the digest that names it."""

    content: bytes
    digest: str


class Carrier(NamedTuple):
    """The text of a module, and a name for it that no other version has."""

    name: str
    text: str


@functools.cache
def build_carrier() -> Carrier:
    """What engines carry to workers: see `runner/engine_worker.py`."""
    path = os.path.join(_ROOT, "runner", "engine_worker.py")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    packed = build_zipapp()
    text += f'\nDIGEST = "{packed.digest}"\n'
    text += f'RUNNER = "{base64.b64encode(packed.content).decode()}"\n'
    digest = hashlib.blake2b(text.encode(), digest_size=10).hexdigest()
    return Carrier(f"umpteen_carrier_{digest}", text)


@functools.cache
def build_zipapp() -> Zipapp:
    """The runner of this copy of umpteen."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_entry("umpteen/__init__.py"), "")
        for module in TRAVELS:
            place = module.replace(".", "/")
            path = f"{place}/__init__.py" if os.path.isdir(f"{_ROOT}/{place}") else f"{place}.py"
            if not os.path.exists(f"{_ROOT}/{path}"):
                continue
            with open(f"{_ROOT}/{path}", "rb") as file:
                archive.writestr(_entry(f"umpteen/{path}"), file.read())
    content = packed.getvalue()
    return Zipapp(content, hashlib.blake2b(content, digest_size=10).hexdigest())


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
