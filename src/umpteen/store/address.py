"""Which results store an address stands for.

Knows folders; what lies elsewhere is loaded where it is asked for, and only then. Standard
library alone.
"""

from __future__ import annotations

import json
import os
import re
import sys

from umpteen.errors import SettingsError, nearest_hint
from umpteen.model.variables import RESULTS_OPTIONS, STORE_PATIENCE_S
from umpteen.store.base import Options, Store
from umpteen.store.directory import DirectoryStore

__all__ = [
    "OPTIONS_VARIABLE",
    "check_job_address",
    "find_output",
    "is_remote",
    "is_root",
    "make_absolute",
    "open_store",
    "output_folder",
    "parse_address",
    "place_of",
    "read_options",
    "read_patience",
    "working_folder",
]

OPTIONS_VARIABLE = RESULTS_OPTIONS

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
# Two spellings of one place must not be two jobs.
_SPELLINGS = {"s3a": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs"}
_USUAL = ("abfs", "file", "gs", "memory", "s3", "sfs", "sftp", "ssh")
# Schemes of fsspec that only read, or that stand for something else.
_NEVER = frozenset(
    "asynclocal asyncwrapper async_wrapper blockcache cached dask data dir filecache generic gist "
    "git github http https jlab jupyter libarchive local pyscript reference root simplecache tar "
    "zip".split()
)
_FOLDERS = ("/", "./", "../", "~")
_TORN = re.compile(rf"({'|'.join([*_USUAL, *_SPELLINGS])}):/?(?!/)", re.IGNORECASE)


def is_remote(address: str) -> bool:
    """Whether an address is of another place than a folder of this machine."""
    if "://" not in address:
        return False
    scheme = _SCHEME.match(address)
    return scheme is not None and scheme[1].lower() != "file"


def is_root(path: str) -> bool:
    """Whether an address is the root folder itself, however it is written: no outputs are there."""
    if not path.endswith(("/", ".")) or is_remote(path):  # as nearly all
        return False
    try:
        return not parse_address(path).strip("/")
    except SettingsError:
        return False


def output_folder(output: str) -> str:
    """The folder on this machine that the address of an output, which is not remote, names."""
    return output if output.startswith("/") else parse_address(output)


def parse_address(address: str) -> str:
    """An address as it is kept: the absolute path of a folder, else `scheme://…`.

    Raises SettingsError where it can be none, or says what nobody may read: a password.
    """
    scheme = _SCHEME.match(address)
    if torn := _TORN.match(address):
        rest = address[torn.end() :]
        raise SettingsError(
            f"the address {address!r} has no '//' behind '{torn[1]}:'",
            f"write {torn[1]}://{'/' if torn[1] == 'file' else ''}{rest}, or ./{address} for a "
            f"folder",
        )
    if not scheme and "://" in address and not address.startswith(_FOLDERS):
        raise SettingsError(
            "the address of the results has no scheme before its '://'",
            "write scheme://place/folder, with one scheme; ./ before it for a folder of that name",
        )
    if scheme and scheme[1].lower() != "file":
        return _parse_remote(scheme[1].lower(), address[scheme.end() :])
    if scheme:
        address = address[scheme.end() :]  # as fsspec has it: a % there is a %
        if not address.startswith("/"):
            raise SettingsError(
                "a file:// address needs an absolute path", "write file:///folder/name"
            )
    return make_absolute(os.path.expanduser(address))


def check_job_address(address: str) -> None:
    """Raises SettingsError for an address of a store that no job can have its own files at."""
    scheme, _, place = address.partition("://")
    if scheme == "memory" and place:
        raise SettingsError(
            "results at memory:// are gone with the process that has them",
            "give a folder, or another place",
        )
    if scheme == "sfs" and "/" not in place.strip("/"):
        raise SettingsError(
            f"{address} names no user: sfs:// addresses have an organization and a user",
            "write sfs://organization/user/folder",
        )


def make_absolute(path: str) -> str:
    """The path from the root. Raises SettingsError for one of a folder
    that is not there any more.
    """
    return os.path.abspath(path if os.path.isabs(path) else os.path.join(working_folder(), path))


def working_folder() -> str:
    """The folder that we are in. Raises SettingsError where it was removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise SettingsError(
            "the folder you are in no longer exists", "change to one that does: cd"
        ) from None


def open_store(
    address: str, options: Options | None = None, patience_s: float | None = None
) -> Store:
    """The store at an address; nothing is made there yet. Raises SettingsError.

    options: what the file system of another place is opened with, else what the environment
    variable UMPTEEN_RESULTS_OPTIONS has, as JSON. patience_s: for how long trouble there is
    borne with, else what `read_patience` says.
    """
    address = parse_address(address)
    if not is_remote(address):
        return DirectoryStore(address)
    if sys.flags.no_site:  # a runner, which starts without what only few of them need
        import site

        site.main()
    from umpteen.store.remote import RemoteStore

    options = read_options() if options is None else options
    return RemoteStore(address, options, read_patience() if patience_s is None else patience_s)


def read_patience() -> float:
    """For how many seconds trouble of a store is borne with. Raises SettingsError."""
    said = os.environ.get(STORE_PATIENCE_S) or "60"
    try:
        return float(said)
    except ValueError:
        raise SettingsError(
            f"{STORE_PATIENCE_S} is {said!r}, which is no number of seconds"
        ) from None


def place_of(store: Store, name: str, output: str | None) -> str:
    """Where the outputs of a task of that name belong: at its own address, if it has one."""
    return parse_address(output) if output else store.path(name)


def find_output(
    store: Store,
    output: str,
    opened: dict[str, Store] | None = None,
    options: Options | None = None,
) -> tuple[Store, str]:
    """The store that a task's folder is in, and its key there; `store` where it is in that.

    opened: a store for each other place; where there is none yet, it is opened and put there.
    options: of those, as of `open_store`.
    """
    if output.startswith(store.address + "/"):
        return store, output[len(store.address) + 1 :].rstrip("/")
    address = parse_address(output)
    if address.startswith(store.address + "/"):
        return store, address[len(store.address) + 1 :]
    if opened is None or not is_remote(address):
        above, _, name = address.rpartition("/")
        return open_store(above or "/", options), name  # else it would be where we are
    place, key = _split_place(address)
    if place not in opened:
        opened[place] = open_store(place, options)
    return opened[place], key


def _split_place(address: str) -> tuple[str, str]:
    """The host or bucket of an address, and what is below that; `~` of a host is a place, too."""
    scheme, _, rest = address.partition("://")
    above, _, key = rest.partition("/")
    if not above or key.startswith("~/"):
        first, _, key = key.partition("/")
        above += f"/{first}"
    return f"{scheme}://{above}", key


def _parse_remote(scheme: str, rest: str) -> str:
    scheme = _SPELLINGS.get(scheme, scheme)
    if scheme not in _USUAL:
        _check_scheme(scheme)
    host, slash, path = rest.partition("/")
    if ":" in host.rpartition("@")[0]:
        raise SettingsError(
            f"the {scheme}:// address of the results has a password in it",
            "leave it out: use a key, the environment, or `options` of the results",
        )
    if "?" in rest:
        raise SettingsError(
            f"the {scheme}:// address of the results has a '?' in it",
            "what is to be said of the place goes into `options` of the results",
        )
    parts = [part for part in path.split("/") if part]
    if not (host or (scheme == "memory" and parts)) or {".", ".."} & set(parts):
        raise SettingsError(
            f"the {scheme}:// address of the results has no place, or '.' or '..' in it",
            f"write {scheme}://place/folder",
        )
    return f"{scheme}://{host}{slash if parts else ''}{'/'.join(parts)}"


def _check_scheme(scheme: str) -> None:
    from umpteen.store.backends.opening import known_schemes

    if scheme in _NEVER:
        raise SettingsError(
            f"nothing can be kept at {scheme}://", "give a folder, or another place"
        )
    known = known_schemes()
    if known and scheme not in known:  # a runner may look before it can see any package
        hint = nearest_hint(scheme, known.union(_USUAL))
        raise SettingsError(f"results at {scheme}:// are not known", hint)


def read_options() -> Options:
    """What the environment says; a value that cannot be read is not shown."""
    try:
        options = json.loads(os.environ.get(OPTIONS_VARIABLE) or "{}")
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise SettingsError(
            f"{OPTIONS_VARIABLE} is no JSON object", 'write it like {"endpoint_url": "https://…"}'
        )
    return options
