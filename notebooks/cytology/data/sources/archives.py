"""Large archives: a broken download resumes where it stopped; unpacking is all or nothing.

An archive comes from the internet: nothing in it may be written outside its folder, and its
unpacked size is limited by its own size and by the free disk space.
"""

import http.client
import json
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import BinaryIO, Self

from cytology.files import file_hash
from cytology.notebook import progress
from cytology.settings import MOST_FOLDERS, InputError, short
from cytology.tables import write_json

_BLOCK = 1 << 20
MEGABYTE = 1_000_000
STALL_SECONDS = 60.0
USABLE_SHARE_OF_FREE_DISK = 0.9
# Images hardly compress: an archive that grows by more than this factor, and a GB, is a bomb.
MOST_TIMES, MOST_BYTES = 50, 1_000_000_000
MOST_MEMBERS = 200_000
MOST_HEADER = 1_000_000  # bytes of a tar's extended header, which `tarfile` reads at once
UNPACKED = ".unpacked-from.txt"


class Unreachable(InputError):
    """An address that cannot be reached. The message is the bare reason, without a full stop."""


# -------------------------------------------------------------------- download


def is_safe(address: str) -> bool:
    """Whether nobody can change the file on its way: https, or this machine."""
    try:
        parts = urllib.parse.urlsplit(address)
        here = parts.hostname in ("localhost", "127.0.0.1", "::1")
    except ValueError:
        return False
    return bool(parts.hostname) and (parts.scheme == "https" or parts.scheme == "http" and here)


class SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects only to addresses that are `is_safe`."""

    def redirect_request(self, request, response, code, message, headers, address):
        if not is_safe(address):
            raise urllib.error.URLError(f"the server redirects to {address}, which is not https")
        return super().redirect_request(request, response, code, message, headers, address)


OPENER = urllib.request.build_opener(SafeRedirects)


def download(address: str, path: Path) -> None:
    """Fetch `address` (https; http from this machine) to `path`; a broken download resumes.

    Until the download is complete, it is in `<name>.part` next to `path`. If the server cannot
    resume, or the file has changed, the download starts over. Raises `Unreachable` with the reason
    if there is no connection or no such file, and `InputError` if the disk is too small or the
    connection breaks.
    """
    if not is_safe(address):
        raise InputError(
            f"The address {address!r} must begin with https:// (http:// only for this machine)."
        )
    part, memory = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.json")
    have, file, headers = 0, {}, {}
    if part.is_file() and memory.is_file():
        file = json.loads(memory.read_text("utf-8"))
        have = part.stat().st_size if file["address"] == address else 0
    if have:
        headers["Range"] = f"bytes={have}-"
    if have and file["version"]:  # the server sends the rest only if the file is unchanged
        headers["If-Range"] = file["version"]
    try:
        request = urllib.request.Request(address, headers=headers)  # noqa: S310 (see is_safe)
        response = OPENER.open(request, timeout=STALL_SECONDS)
    except (OSError, http.client.HTTPException) as error:
        if have and getattr(error, "code", None) == 416:  # the file is shorter than our part of it
            part.unlink()
            return download(address, path)
        raise Unreachable(_reason(error)) from None
    with response:
        if not have or response.status != 206:
            have, file = 0, _described(address, response)
        length = file["length"]
        if have and response.headers["Content-Range"] != f"bytes {have}-{length - 1}/{length}":
            part.unlink()
            return download(address, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_room(length - have, _room(path.parent), path)
        write_json(path.parent, memory.name, file)
        trouble = _receive(response, part, have, length)
    if part.stat().st_size != length:
        raise InputError(
            f"The download of {path.name} broke off at {part.stat().st_size / MEGABYTE:.1f} of "
            f"{length / MEGABYTE:.1f} MB ({trouble}): run it again to resume."
        )
    part.replace(path)
    memory.unlink()


def _described(address: str, response: http.client.HTTPResponse) -> dict:
    """Length and version of the file on the server; `Unreachable` if it is a web page."""
    headers = response.headers
    if headers.get_content_type() == "text/html" or not headers.get("Content-Length", "").isdigit():
        raise Unreachable("the server sends a web page, or no length, instead of a file")
    version = headers.get("ETag") or headers.get("Last-Modified", "")
    return {"address": address, "version": version, "length": int(headers["Content-Length"])}


def _receive(response: http.client.HTTPResponse, part: Path, have: int, length: int) -> str:
    """Append the response to `part`, or start it again; returns why it ended early, if it did."""
    bar = progress(None, f"downloading {part.stem}", length // MEGABYTE, "MB")
    with part.open("ab" if have else "wb") as file, bar:
        try:
            while block := response.read(_BLOCK):
                file.write(block)
                bar.update(file.tell() // MEGABYTE - bar.n)
        except (OSError, http.client.HTTPException) as error:
            return _reason(error)
    return "the server closed the connection"


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return f"{getattr(error, 'code', '')} {reason}".strip() or type(error).__name__


def _room(folder: Path) -> float:
    """How many bytes can still be written to the disk of `folder`."""
    return shutil.disk_usage(folder).free * USABLE_SHARE_OF_FREE_DISK


def _check_room(size: int, room: float, path: Path) -> None:
    if size > room:
        raise InputError(
            f"{path.name} needs at least {size / MEGABYTE:,.0f} MB, but the disk has only "
            f"{room / MEGABYTE:,.0f} MB left: make room first."
        )


# ---------------------------------------------------------------------- unpack


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .tar, .tar.gz or .zip file to `folder`, which must not exist yet.

    Everything goes to a temporary folder first, which is renamed at the end: a failure leaves
    nothing. The format is recognized by the content, not by the name. Raises `InputError` if the
    file is damaged, encrypted or not an archive, if it unpacks to more than the disk can hold or a
    set of images has, or if it has links, devices or names that lead outside.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    if folder.exists():
        raise InputError(f"{short(folder)} already exists: move it away to unpack {archive.name}.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder.parent) as temporary:
        whole = Path(temporary, folder.name)
        whole.mkdir()
        bar = progress(None, f"unpacking {archive.name}", archive.stat().st_size // MEGABYTE, "MB")
        try:
            with archive.open("rb") as raw, bar:
                write = _unzip if raw.read(2) == b"PK" else _untar
                raw.seek(0)
                for _ in write(raw, archive, whole):
                    bar.update(max(0, raw.tell() // MEGABYTE - bar.n))
            (whole / UNPACKED).write_text(
                f"{unpacked_mark(archive)}\n{file_hash(archive)}", encoding="utf-8"
            )
        except InputError:
            raise
        except Exception as error:  # zipfile and tarfile raise a dozen types for damaged archives
            why = (str(error) or type(error).__name__).splitlines()[0].rstrip(":.")
            if isinstance(error, OSError) and error.errno:
                raise InputError(f"{archive} cannot be unpacked to {folder}: {why}.") from None
            raise InputError(
                f"{archive} is damaged, incomplete or not an archive ({why}): delete it and "
                "download it again."
            ) from None
        whole.replace(folder)


def unpacked_mark(archive: Path) -> str:
    """Name and size of an archive; `unpack` writes them into the folder, above its SHA-256."""
    return f"{archive.name} {archive.stat().st_size}"


def unpacked_from(folder: Path) -> tuple[str, str]:
    """Mark and SHA-256 of the archive that `folder` was unpacked from; empty if it was not."""
    lines = (
        (folder / UNPACKED).read_text("utf-8").splitlines() if (folder / UNPACKED).is_file() else []
    )
    name, digest = [*lines, "", ""][:2]
    return name, digest


class CheckedHeader(tarfile.TarInfo):
    """A tar header whose size is checked before `tarfile` reads or skips so many bytes."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """The header in these bytes; `tarfile.ReadError` if it is too large."""
        found = super().frombuf(buf, encoding, errors)
        if found.size < 0 or (found.size > MOST_HEADER and not found.isreg()):
            raise tarfile.ReadError(f"a header of {found.size:,} bytes")
        return found


def _untar(raw: BinaryIO, archive: Path, whole: Path) -> Iterator[str]:
    """Check and write one member after the other; yields the names."""
    room, total = _room(whole), 0
    with tarfile.open(fileobj=raw, tarinfo=CheckedHeader) as tar:
        # The first releases of Python 3.11 have no filter; this refuses the same members.
        tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
        for number, member in enumerate(tar, start=1):
            total += member.size
            _check_size(number, total, archive)
            _check_room(total, room, archive)
            _check_name(member.name, archive)
            if member.issparse() or not (member.isfile() or member.isdir()):
                _refuse(archive, f"its member {member.name!r} is a link, a device or sparse")
            tar.extract(member, whole, set_attrs=False)  # permissions are the umask's
            yield member.name
        # tarfile does not notice a missing end. There must be a block of zeros, and reading on
        # makes gzip check its checksum.
        if tar.fileobj.tell() < tar.offset + tarfile.BLOCKSIZE:
            raise EOFError("the end is missing")
        while tar.fileobj.read(_BLOCK):
            _check_size(0, tar.fileobj.tell(), archive)


def _unzip(raw: BinaryIO, archive: Path, whole: Path) -> Iterator[str]:
    """Check all members, then write one after the other; yields the names."""
    with zipfile.ZipFile(raw) as packed:
        # zipfile reads no more of a member than its stated size.
        total = sum(member.file_size for member in packed.infolist())
        _check_size(len(packed.infolist()), total, archive)
        _check_room(total, _room(whole), archive)
        for member in packed.infolist():
            _check_name(member.filename, archive)
            if member.flag_bits & 1:
                raise InputError(f"{archive} is encrypted: unpack it yourself and name the folder.")
            packed.extract(member, whole)
            yield member.filename


def _check_size(members: int, total: int, archive: Path) -> None:
    most = MOST_TIMES * archive.stat().st_size + MOST_BYTES
    if members > MOST_MEMBERS:
        advice = "unpack it yourself and name the folder"
        _refuse(archive, f"it has more than {MOST_MEMBERS:,} members", advice)
    if total > most:
        what = f"more than {most / MEGABYTE:,.0f} MB, {MOST_TIMES} times its size and more"
        _refuse(archive, f"it would grow to {what}, unlike images")


def _check_name(name: str, archive: Path) -> None:
    path = PureWindowsPath(name)  # knows all separators and roots
    if path.anchor or ".." in path.parts:
        _refuse(archive, f"its member {name!r} would be written outside the folder")
    if len(path.parts) > MOST_FOLDERS:
        _refuse(
            archive, f"its member {name[:60]!r}... is in more than {MOST_FOLDERS} nested folders"
        )


def _refuse(
    archive: Path, why: str, advice: str = "get the archive from its official page"
) -> None:
    raise InputError(f"{archive.name} is not unpacked: {why}; {advice}.")
