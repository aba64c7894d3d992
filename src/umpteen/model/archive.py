"""What umpteen's archives of synced folders must be, for whoever makes or unpacks them."""

from __future__ import annotations

__all__ = ["CHUNK", "DIGEST_BYTES", "stays_inside"]


DIGEST_BYTES = 20  # of the blake2b of the tar that is in the archive


CHUNK = 1 << 20


def stays_inside(path: str, target: str) -> bool:
    """Whether a link at `path` leads to somewhere in its folder, whatever other links there are.

    Only where `..` stands at the beginning alone can that be told from the text.
    """
    parts = target.split("/")
    ups = next((count for count, part in enumerate(parts) if part != ".."), len(parts))
    return target[:1] != "/" and ".." not in parts[ups:] and ups <= path.count("/")
