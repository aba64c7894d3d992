"""Which backend an address is of, and what has to be installed for it."""

from __future__ import annotations

import importlib.util
import sys

from umpteen.errors import SettingsError
from umpteen.store.backends.base import Backend
from umpteen.store.base import Options

__all__ = ["known_schemes", "open_backend"]

# The packages that a scheme needs, and the extra of ours that has them.
_PACKAGES = {
    "s3": (("aiobotocore",), "s3"),
    "sftp": (("asyncssh",), "sftp"),
    "gs": (("fsspec", "gcsfs"), "gs"),
    "abfs": (("fsspec", "adlfs"), "abfs"),
    "sfs": (("fsspec", "saturnfs"), "saturn"),
    "ssh": ((), ""),
}
_OTHER = (("fsspec",), "")


def open_backend(address: str, options: Options) -> Backend:
    """The backend for an address, not asked for anything yet.

    Raises SettingsError, which names the package and the extra where one is missing.
    """
    scheme = address.partition("://")[0]
    _need_packages(scheme)
    if scheme == "s3":
        from umpteen.store.backends.s3 import S3Backend

        return S3Backend(address, options)
    if scheme == "sftp":
        from umpteen.store.backends.sftp import SftpBackend

        return SftpBackend(address, options)
    if scheme == "ssh":
        from umpteen.store.backends.ssh import SshBackend

        return SshBackend(address, options)
    from umpteen.store.backends.fsspec import FsspecBackend

    return FsspecBackend(address, options)


def known_schemes() -> set[str]:
    """Every scheme that an address may have; none where fsspec is missing."""
    try:
        from fsspec import available_protocols
    except ImportError:
        return set()
    return set(available_protocols())


def _need_packages(scheme: str) -> None:
    packages, extra = _PACKAGES.get(scheme, _OTHER)
    if all(importlib.util.find_spec(package) for package in packages):
        return
    package = packages[-1]  # it brings the others along
    raise SettingsError(
        f"results at {scheme}:// need the package {package}", _hint_install(package, extra)
    )


def _hint_install(package: str, extra: str) -> str:
    if sys.flags.no_site:  # a runner, on a machine that needs nothing else of ours
        return f"{sys.executable} -m pip install {package}"
    return f"pip install 'umpteen[{extra}]'" if extra else f"pip install {package}"
