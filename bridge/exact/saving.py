"""Where a .tflite may be written, and writing it whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from bridge.errors import BridgeError

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def refuse_target(path: Path, kept: Iterable[Path] = ()) -> None:
    """Raise `BridgeError` where `save` would: what is no regular file is never replaced, nor is any of `kept`.

    A link is followed: the file that it leads to is written, and the link stays.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        if not Path(os.path.realpath(path)).parent.is_dir():
            raise _unwritable(path, os.strerror(errno.ENOENT)) from None
        return
    except OSError as error:
        raise _unwritable(path, error.strerror or type(error).__name__) from error
    kind = next((name for is_kind, name in _KINDS if is_kind(found.st_mode)), None)
    if kind is not None:
        raise BridgeError(
            where=str(path),
            problem=f"is {kind}, and is not replaced by a file",
            remedy="Name a file with -o, for example model.tflite.",
        )
    for other in kept:
        with suppress(OSError):
            if other.samefile(path):  # by another name, through a hard link, or in capitals
                raise BridgeError(
                    where=str(path),
                    problem="is the model itself, or another file that this command reads",
                    remedy="Name another file with -o; what is read is kept.",
                )


def save(tflite: bytes, path: Path) -> None:
    """Write the file whole or not at all: beside, then renamed; one that is replaced hands on its mode and owner.

    Raises `BridgeError` when the folder cannot be written, or when `path` is there and no regular file.
    """
    refuse_target(path)
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))  # nobody else's file, and no link
        beside.write_bytes(tflite)
        _take_after(beside, target)
        beside.replace(target)
    except OSError as error:
        raise _unwritable(path, error.strerror or type(error).__name__) from error
    finally:
        with suppress(OSError):  # the first error is the one to report
            beside.unlink(missing_ok=True)


def _take_after(made: Path, target: Path) -> None:
    """Mode and owner of the file that is there, as far as this user may give them."""
    with suppress(OSError):
        before, now = target.stat(), made.stat()
        if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
            with suppress(OSError):
                os.chown(made, before.st_uid, before.st_gid)
        made.chmod(stat.S_IMODE(before.st_mode))


def _unwritable(path: Path, reason: str) -> BridgeError:
    return BridgeError(
        where=str(path),
        problem=f"cannot be written ({reason})",
        remedy="Choose a folder that exists, that you may write to, and that has room.",
    )
