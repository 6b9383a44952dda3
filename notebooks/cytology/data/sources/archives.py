"""Large archives: a broken download goes on where it broke, and a set is unpacked whole or not.

An archive comes from the internet: nothing that it names may lie outside its folder, and what it
says about its size is checked against the disk, and against what an archive of images can hold.
"""

import gzip
import http.client
import itertools
import json
import re
import shutil
import tarfile
import tempfile
import unicodedata
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from lzma import LZMAError
from pathlib import Path, PureWindowsPath
from typing import BinaryIO, NamedTuple

from cytology.files import file_hash
from cytology.notebook import progress
from cytology.settings import MOST_FOLDERS, InputError, short
from cytology.tables import write_json
from cytology.wording import is_one_line

BLOCK = 1 << 20
MEGABYTE = 1_000_000
PROBE_SECONDS = 5.0
STALL_SECONDS = 60.0
USABLE_SHARE_OF_FREE_DISK = 0.9
# Images hardly compress: what unpacks to more than this many times its size, and a GB, is a bomb.
MOST_TIMES, MOST_BYTES = 50, 1_000_000_000
MOST_MEMBERS = 200_000
MOST_HEADER = 1_000_000  # bytes; of a tar's extended header, which `tarfile` reads at once
MARK = ".unpacked-from.txt"
# Names that Windows gives to devices, whatever follows a dot, and ends of names that it drops.
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$|.*[ .]$", re.IGNORECASE)
DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, gzip.BadGzipFile),
    *(EOFError, NotImplementedError),  # NotImplementedError: a compression that zipfile lacks
    *(ValueError, OverflowError, RecursionError, MemoryError),  # headers with senseless numbers
)


class Unreachable(InputError):
    """An address that cannot be had now. The message is the bare reason, without a full stop."""


# -------------------------------------------------------------------- download


def is_safe(address: str) -> bool:
    """Whether nobody on the way can change what comes: https, or this very machine."""
    try:
        parts = urllib.parse.urlsplit(address)
        here = parts.hostname in ("localhost", "127.0.0.1", "::1")
    except ValueError:
        return False
    return bool(parts.hostname) and (parts.scheme == "https" or parts.scheme == "http" and here)


class SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Goes only where `is_safe`, also when a server sends it elsewhere."""

    def redirect_request(self, request, response, code, message, headers, address):
        if not is_safe(address):
            raise urllib.error.URLError(f"the server leads to {address}, which is not https")
        return super().redirect_request(request, response, code, message, headers, address)


OPENER = urllib.request.build_opener(SafeRedirects)


def download(address: str, path: Path) -> None:
    """Fetch `address` (https; http from this machine) to `path`, going on where a call broke off.

    Until all bytes that the server announced are there, they lie in `<name>.part` beside `path`.
    Where the server cannot go on in the middle, or the file has changed, it starts over. Raises
    `Unreachable` with the reason when there is no connection or no such file, and `InputError`
    when the disk is too small or the connection breaks.
    """
    if not is_safe(address):
        raise InputError(
            f"The address {address!r} must begin with https:// (http:// only for this machine)."
        )
    _probe(address)
    path.parent.mkdir(parents=True, exist_ok=True)
    part, memory = path.with_name(path.name + ".part"), path.name + ".part.json"
    response, have, file = _open(address, part, path.with_name(memory))
    with response:
        length = file["length"]
        _check_disk(path.parent, length - have, f"{path.name} needs")
        write_json(path.parent, memory, file)
        trouble = _receive(response, part, have, length)
    if part.stat().st_size != length:
        raise InputError(
            f"The download of {path.name} broke off at {part.stat().st_size / MEGABYTE:.1f} of "
            f"{length / MEGABYTE:.1f} MB ({trouble}): run it again, and it goes on from there."
        )
    part.replace(path)
    path.with_name(memory).unlink()


def _probe(address: str) -> None:
    """Raise `Unreachable` soon if there is no connection; the download itself may wait longer."""
    try:
        request = urllib.request.Request(address, method="HEAD")  # noqa: S310 (see is_safe)
        OPENER.open(request, timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError:
        return  # The server is there; some refuse HEAD alone, and GET tells what is wrong.
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(_reason(error)) from None


def _open(address: str, part: Path, memory: Path) -> tuple[http.client.HTTPResponse, int, dict]:
    """Open response, bytes that need not come again, and what identifies the file on the server."""
    have = part.stat().st_size if part.is_file() and memory.is_file() else 0
    before = json.loads(memory.read_text("utf-8")) if have else {}
    if have and before["address"] == address:
        # With If-Range the server sends the rest only if the file is still the same.
        headers = {"Range": f"bytes={have}-"}
        headers |= {"If-Range": before["version"]} if before["version"] else {}
        response = _get(address, headers)
        if response is not None and response.status == 206:
            rest = f"bytes {have}-{before['length'] - 1}/{before['length']}"
            if response.headers.get("Content-Range") == rest:
                return response, have, before
        if response is not None:
            response.close()
    response = _get(address, {})
    length = response.headers.get("Content-Length", "")
    if response.headers.get_content_type() == "text/html" or not length.isdigit():
        response.close()
        raise Unreachable("the server answers with a web page or without a length, not with a file")
    etag = response.headers.get("ETag", "")
    version = response.headers.get("Last-Modified", "") if etag.startswith("W/") else etag
    return response, 0, {"address": address, "version": version, "length": int(length)}


def _get(address: str, headers: dict[str, str]) -> http.client.HTTPResponse | None:
    """Response to a GET request; None if the server has nothing in the range asked for."""
    try:
        request = urllib.request.Request(address, headers=headers)  # noqa: S310 (see is_safe)
        return OPENER.open(request, timeout=STALL_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and headers:
            return None
        raise Unreachable(f"{error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(_reason(error)) from None


def _receive(response: http.client.HTTPResponse, part: Path, have: int, length: int) -> str:
    """Append the response to `part` (or write it anew); returns why it ended early, if it did."""
    what = f"downloading {part.stem}"
    with (
        part.open("ab" if have else "wb") as file,
        progress(None, what, length // MEGABYTE, "MB") as bar,
    ):
        while True:
            try:
                block = response.read(BLOCK)
                file.write(block)
            except (OSError, http.client.HTTPException) as error:
                return _reason(error)
            if not block:
                return "the server closed the connection"
            bar.update(file.tell() // MEGABYTE - bar.n)


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", error)) or type(error).__name__


def _check_disk(folder: Path, size: int, what: str) -> None:
    """Raise `InputError` if `size` bytes more would fill the disk that `folder` lies on."""
    free = shutil.disk_usage(folder).free
    if size > free * USABLE_SHARE_OF_FREE_DISK:
        raise InputError(
            f"{what} {size / MEGABYTE:,.0f} MB, and {free / MEGABYTE:,.0f} MB are free on the disk "
            f"of {folder}: make room first."
        )


# ---------------------------------------------------------------------- unpack


class Member(NamedTuple):
    """A file of an archive: its name there, its size in bytes and its opened content."""

    name: str
    size: int
    content: BinaryIO


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .tar, .tar.gz or .zip file to `folder`, which must not be there yet.

    Everything goes to a temporary folder beside `folder` first and is renamed at the end: a
    failure leaves nothing. The format is told by the content, not by the name. Raises `InputError`
    with the member's name for links, devices, sparse files and names that lead outside, and for an
    archive that is damaged, incomplete, a web page, larger than nine tenths of the free disk, or
    unpacks to more bytes or files than a set of images has.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    if folder.exists():
        raise InputError(
            f"{short(folder)} is there already: move it away to unpack {archive.name}."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder.parent) as temporary:
        whole = Path(temporary, folder.name)
        whole.mkdir()
        try:
            with archive.open("rb") as raw:
                _unpack_members(_members(raw, archive), raw, archive, whole)
        except InputError:  # which is a ValueError, too
            raise
        except DAMAGE as error:
            raise InputError(_damaged(archive, error)) from None
        except OSError as error:
            raise InputError(f"{archive} cannot be unpacked to {folder}: {error}.") from None
        (whole / MARK).write_text(f"{mark(archive)}\n{file_hash(archive)}", encoding="utf-8")
        whole.replace(folder)


def mark(archive: Path) -> str:
    """What tells an archive from another soon: its name and size.

    `unpack` leaves it in the folder, and the archive's SHA-256 in a second line.
    """
    return f"{archive.name} {archive.stat().st_size}"


def unpacked_from(folder: Path) -> tuple[str, str]:
    """Mark and SHA-256 of the archive that `folder` was unpacked from; empty if it was not."""
    lines = (folder / MARK).read_text("utf-8").splitlines() if (folder / MARK).is_file() else []
    return tuple((*lines, "", "")[:2])


def _damaged(archive: Path, error: BaseException) -> str:
    why = (str(error) or type(error).__name__).splitlines()[0].rstrip(":.")
    return f"{archive} is damaged or incomplete ({why}): delete it and download it again."


def _unpack_members(members: Iterator[Member], raw: BinaryIO, archive: Path, whole: Path) -> None:
    total, size, taken = 0, archive.stat().st_size, {}
    with progress(None, f"unpacking {archive.name}", size // MEGABYTE, "MB") as bar:
        room = shutil.disk_usage(whole).free * USABLE_SHARE_OF_FREE_DISK
        for member in members:
            total += member.size
            _check_size(total, archive)
            if total > room:
                raise InputError(
                    f"{archive.name} unpacks to more than the {room / MEGABYTE:,.0f} MB that the "
                    f"disk of {whole.parents[1]} has to spare: make room first."
                )
            target = _inside(whole, member.name, archive)
            _check_free(target, taken, member.name, archive)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                # One byte more than it says it has: what goes on after that is a bomb.
                _copy(member.content, file, member.size + 1)
                if file.tell() != member.size:
                    raise EOFError(f"{member.name} has not the {member.size:,} bytes it names")
            bar.update(max(0, raw.tell() // MEGABYTE - bar.n))


def _check_size(total: int, archive: Path) -> None:
    """`InputError` if an archive unpacks to more bytes than its own size lets one expect."""
    most = MOST_TIMES * archive.stat().st_size + MOST_BYTES
    if total > most:
        raise InputError(
            f"{archive.name} is not unpacked: it would become more than {most / MEGABYTE:,.0f} MB, "
            f"{MOST_TIMES} times its size and more, which no images do; get the archive from its "
            "official page."
        )


def _check_number(members: int, archive: Path) -> None:
    """`InputError` if an archive has more members than a set of images has files and folders."""
    if members > MOST_MEMBERS:
        raise InputError(
            f"{archive.name} is not unpacked: it has more than {MOST_MEMBERS:,} members; unpack it "
            "yourself and name the folder."
        )


def _inside(folder: Path, name: str, archive: Path) -> Path:
    """Where a member belongs. Read as Windows reads it, which knows every kind of separator."""
    path = PureWindowsPath(name)
    if path.anchor or ".." in path.parts or not path.parts:
        raise InputError(
            f"{archive.name} is not unpacked: its member {name!r} would lie outside the folder; "
            "get the archive from its official page."
        )
    if any(RESERVED.match(part) for part in path.parts) or not is_one_line(name):
        raise InputError(
            f"{archive.name} is not unpacked: its member {name!r} has a name that Windows cannot "
            "have, or a line break in it; rename it and pack it again."
        )
    if len(path.parts) > MOST_FOLDERS:
        raise InputError(
            f"{archive.name} is not unpacked: its member {name[:60]!r}... lies in more than "
            f"{MOST_FOLDERS} folders; pack it again with fewer."
        )
    return folder.joinpath(*path.parts)


def _check_free(target: Path, taken: dict[str, str], name: str, archive: Path) -> None:
    """`InputError` if another member has this name already, as Windows and a Mac compare names."""
    key = unicodedata.normalize("NFC", target.as_posix()).casefold()
    if key in taken:
        raise InputError(
            f"{archive.name} is not unpacked: its members {taken[key]!r} and {name!r} would be one "
            "file on a Mac or on Windows; rename one and pack it again."
        )
    taken[key] = name


def _copy(source: BinaryIO, target: BinaryIO, most: int) -> None:
    while most > 0 and (block := source.read(min(BLOCK, most))):
        target.write(block)
        most -= len(block)


def _members(raw: BinaryIO, archive: Path) -> Iterator[Member]:
    """The files of an archive in its order; folders are made as files need them."""
    start = raw.read(512).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise InputError(
            f"{archive} is a web page, not an archive (a server's error or login page): delete it "
            "and download the archive in a browser."
        )
    raw.seek(0)
    if start.startswith(b"pk"):
        return _zip_members(raw, archive)
    return _tar_members(raw, archive)


class CheckedHeader(tarfile.TarInfo):
    """A header of a tar whose size is looked at before `tarfile` reads or skips so many bytes."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        # `tarfile` names this method as the one for subclasses to override.
        if self.size < 0 or (self.type in EXTENDED and self.size > MOST_HEADER):
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        return super()._proc_member(tar)


EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
EXTENDED += (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


def _tar_members(raw: BinaryIO, archive: Path) -> Iterator[Member]:
    with tarfile.open(fileobj=raw, mode="r:*", tarinfo=CheckedHeader) as tar:
        for number, member in enumerate(tar, start=1):
            _check_number(number, archive)
            if member.issparse():
                _refuse(member.name, archive, "a sparse file")
            elif member.isfile():
                yield Member(member.name, member.size, tar.extractfile(member))
            elif not member.isdir():
                _refuse(member.name, archive)
        # tarfile takes a missing end for the end. There must be a block of zeros, and reading on
        # lets gzip compare its checksum.
        if tar.fileobj.tell() < tar.offset + tarfile.BLOCKSIZE:
            raise EOFError("the end is missing")
        while tar.fileobj.read(BLOCK):
            _check_size(tar.fileobj.tell(), archive)


def _zip_members(raw: BinaryIO, archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(raw) as packed:
        _check_number(len(packed.infolist()), archive)
        _check_apart(packed.infolist(), archive)
        for member in packed.infolist():
            kind = member.external_attr >> 28  # the type of a Unix file: 8 a file, 4 a folder
            if member.flag_bits & 1:
                raise InputError(f"{archive} is encrypted: unpack it yourself and name the folder.")
            if kind not in (0, 4, 8):
                _refuse(member.filename, archive)
            elif not member.is_dir():
                with packed.open(member) as content:
                    yield Member(member.filename, member.file_size, content)


def _check_apart(members: list[zipfile.ZipInfo], archive: Path) -> None:
    """`InputError` if two members share bytes: so a small file becomes many large ones."""
    ordered = sorted(members, key=lambda member: member.header_offset)
    for one, other in itertools.pairwise(ordered):
        if one.header_offset + zipfile.sizeFileHeader + one.compress_size > other.header_offset:
            _refuse(other.filename, archive, f"inside of {one.filename!r}")


def _refuse(name: str, archive: Path, what: str = "a link or a device, no file") -> None:
    raise InputError(
        f"{archive.name} is not unpacked: its member {name!r} is {what}; get the archive from its "
        "official page."
    )
