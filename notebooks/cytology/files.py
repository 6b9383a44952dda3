"""Files written atomically, their checksums, and errors of the disk."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
import time
import zlib
from pathlib import Path

from filelock import FileLock

from cytology.settings import InputError, MachineError, short


def refuse_links_out(run: Path) -> None:
    """`InputError` if a link below the folder `run` leads out of it: the run would write there."""
    root = Path(os.path.realpath(run))
    folders = [root]
    while folders:
        # A folder may not exist yet, or no longer: other processes may be at work.
        with contextlib.suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                target = Path(os.path.realpath(entry)) if entry.is_symlink() else root
                if not target.is_relative_to(root):
                    raise InputError(
                        f"The run folder {short(run)} holds a link that leads out of it, "
                        f"{Path(entry).relative_to(root)} to {target}: remove the link, or choose "
                        "another folder (run_dir)."
                    )
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))


def file_hash(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


UNFINISHED = ".unfinished-"  # in a file's name until it is complete
FORGOTTEN_SECONDS = 24 * 3600
NAME_BYTES = 255  # the longest name of one file: ext4, APFS, NTFS and most others
FULL_BYTES = 2**20  # a disk with less free space counts as full: libraries may hide the reason
FULL = "the disk is full"
REFUSALS = dict.fromkeys((errno.EACCES, errno.EPERM), "no permission")
REFUSALS |= dict.fromkeys((errno.ENOSPC, errno.EDQUOT), FULL)
REFUSALS |= {errno.EROFS: "the disk is read-only", errno.ELOOP: "there is a link in its place"}
REFUSALS |= {errno.ENAMETOOLONG: "the name is too long"}


def fitting_name(name: str, ending: str = "") -> str:
    """`name` with `ending`, as the name of a file or folder.

    If that is longer than a file system allows, `name` is cut and a hash of it added, so that two
    names remain two.
    """
    if len(os.fsencode(name + ending)) <= NAME_BYTES:
        return name + ending
    ending = f"~{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}{ending}"
    # Bytes, not letters: an umlaut takes two bytes. A letter that is cut in half is dropped.
    begin = os.fsencode(name)[: NAME_BYTES - len(os.fsencode(ending))].decode(errors="ignore")
    return begin + ending


@contextlib.contextmanager
def written_whole(path):
    """Context with a temporary path next to `path`, which is renamed to `path` on success.

    Readers see the old file or the new one, never half of one. After an error the temporary
    file is removed. The suffixes are kept, since Keras chooses its format by them. Raises
    `MachineError` if the disk is full or cannot be written to.
    """
    path = Path(path)
    with disk_errors_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = new_beside(path)
    try:
        with disk_errors_explained(path):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def new_beside(path: Path) -> Path:
    """A new, empty, unfinished file in the folder of `path`."""
    # Not `tempfile`: its permissions would lock out people with whom the run is shared.
    temporary = path.with_name(f"{UNFINISHED}{secrets.token_hex(8)}{''.join(path.suffixes)}")
    temporary.touch(exist_ok=False)
    return temporary


def lock_file(path: Path) -> FileLock:
    """A lock at `path`, a file with the permissions that the user's mask allows."""
    path.touch()
    # Without `mode` some versions of filelock set permissions, even on an existing file.
    return FileLock(path, mode=stat.S_IMODE(path.stat().st_mode))


@contextlib.contextmanager
def folder_written_whole(path):
    """`written_whole` for a folder; it replaces an earlier one as a whole."""
    path = Path(path)
    with disk_errors_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=path.parent)
    # Check the disk before the unfinished file is removed, which frees space.
    with holder as beside, disk_errors_explained(path):
        new = Path(beside) / "new"
        new.mkdir()
        yield new
        if path.exists():
            path.replace(Path(beside) / "old")
        new.replace(path)


@contextlib.contextmanager
def disk_errors_explained(path: Path):
    """Turn the error of a disk that is full, read-only or forbidden into one sentence.

    Errors about files other than `path` and its neighbours pass unchanged.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: h5py, when it cannot close a file
        reason = _why_not_written(error, path)
        if reason is None or not _is_about(error, path):
            raise
        raise MachineError(
            f"{short(path)} cannot be written: {reason}. Finished work is kept: fix the problem, "
            "then start again."
        ) from error


def _is_about(error: Exception, path: Path) -> bool:
    """Whether an error is about `path`, a folder above it, a file beside it, or no named file."""
    named = getattr(error, "filename", None)
    if named is None or isinstance(named, int):  # a number is an open file
        return True
    named, path = Path(os.fsdecode(named)).absolute(), path.absolute()
    return named in path.parents or path.parent in named.parents


def _why_not_written(error: Exception, path: Path) -> str | None:
    """Why the system could not write; None if the error has another cause."""
    number = getattr(error, "errno", None)
    if number in REFUSALS:
        return REFUSALS[number]
    place = next(folder for folder in path.parents if folder.is_dir())
    return FULL if shutil.disk_usage(place).free < FULL_BYTES else None


def remove_unfinished(folder: Path, older_than: float = 0.0) -> list[str]:
    """Remove unfinished files of killed processes below `folder`; returns their names.

    Only files at least `older_than` seconds old: other processes may be at work there.
    """
    found = []
    for path in sorted(folder.rglob(f"{UNFINISHED}*")):
        if path.exists() and time.time() - path.stat().st_mtime >= older_than:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            found.append(path.name)
    return found


def digest(*parts) -> str:
    """A short hash of what a cache entry depends on."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]


def checksum(path: Path) -> str:
    """CRC-32 of a file, or of all files of a folder with their names, as 8 hex digits."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    found = 0
    for file in files:
        if file != path:
            found = zlib.crc32(file.relative_to(path).as_posix().encode(), found)
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                found = zlib.crc32(block, found)
    return f"{found:08x}"


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".crc32")


def keep_checksum(path: Path, written: Path | None = None) -> None:
    """Write the checksum of a file or folder of the cache into a file next to it.

    `written` is its temporary path while it is not yet at `path`.
    """
    with written_whole(_beside(path)) as temporary:
        temporary.write_text(checksum(written or path), encoding="ascii")


@contextlib.contextmanager
def written_with_checksum(path: Path):
    """`written_whole` for a file of the cache, with a checksum, which is written first."""
    with written_whole(path) as temporary:
        yield temporary
        keep_checksum(path, temporary)


def is_sound(path: Path) -> bool:
    """Whether a file or folder of the cache matches its checksum; if not, it is removed."""
    if not path.exists():
        return False
    kept = _beside(path)
    if kept.is_file() and kept.read_bytes() == checksum(path).encode():
        return True
    print(f"{path} is damaged or from an earlier version; it is made again.")
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return False
