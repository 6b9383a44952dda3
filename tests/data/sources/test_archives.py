"""Downloads from a local server, and archives that lie, end early or are not archives."""

import gzip
import http.server
import io
import os
import socket
import struct
import tarfile
import threading
import zipfile
from collections import namedtuple

import pytest

from cytology.data.sources import archives
from cytology.data.sources.archives import Unreachable, download, is_safe, unpack
from cytology.files import file_hash
from cytology.settings import InputError

CONTENT = bytes(range(256)) * 1000
HALF = len(CONTENT) // 2


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.content`; its abilities and where it stops are set on the server."""

    def do_HEAD(self):
        self.send_error(405)

    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers.get("Range"))
        if server.leads_to:
            self.send_response(302)
            self.send_header("Location", server.leads_to)
            self.end_headers()
            return
        if server.status != 200:
            self.send_error(server.status)
            return
        body, start = server.content, 0
        same = self.headers.get("If-Range") in (None, server.etag)
        if server.knows_ranges and self.headers.get("Range") and same:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if server.etag:
            self.send_header("ETag", server.etag)
        self.send_header("Content-Type", server.kind)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : server.breaks_at])

    def log_message(self, *arguments):
        """Print nothing, to keep the output of the tests clean."""


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content, server.status, server.etag = CONTENT, 200, '"one"'
        server.knows_ranges, server.breaks_at, server.ranges = True, None, []
        server.kind, server.leads_to = "application/gzip", ""
        server.address = f"http://127.0.0.1:{server.server_address[1]}/set.tar.gz"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def closed_address():
    """An address without a server."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    return f"http://127.0.0.1:{port}/set.tar.gz"


def interrupt_download(server, path):
    """Interrupt a download after half of the file."""
    server.breaks_at = HALF
    with pytest.raises(InputError, match="broke off at 0.1 of 0.3 MB .*: run it again to resume"):
        download(server.address, path)
    server.breaks_at = None


# -------------------------------------------------------------------- download


def test_a_download_is_complete_and_leaves_no_other_files(server, tmp_path):
    path = tmp_path / "data" / "set.tar.gz"
    download(server.address, path)
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["set.tar.gz"]


def test_a_download_continues_where_it_was_interrupted(server, tmp_path):
    path = tmp_path / "set.tar.gz"
    interrupt_download(server, path)
    assert not path.exists()
    assert path.with_name("set.tar.gz.part").stat().st_size == HALF
    download(server.address, path)
    assert server.ranges == [None, f"bytes={HALF}-"]
    assert path.read_bytes() == CONTENT
    assert [file.name for file in tmp_path.iterdir()] == ["set.tar.gz"]


def test_a_download_starts_over_if_the_server_does_not_support_ranges(server, tmp_path):
    path = tmp_path / "set.tar.gz"
    interrupt_download(server, path)
    server.knows_ranges = False
    download(server.address, path)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("etag", "content", "new_etag"),
    [
        ('"one"', b"new" * HALF, '"two"'),
        ('"one"', CONTENT[::-1], '"two"'),
        ("", b"new" * HALF, ""),  # only the length shows that it is another file
        ("", b"short", ""),
    ],
    ids=["longer", "same length", "longer, no etag", "shorter than the part"],
)
def test_a_download_starts_over_if_the_file_has_changed(server, tmp_path, etag, content, new_etag):
    path = tmp_path / "set.tar.gz"
    server.etag = etag
    interrupt_download(server, path)
    server.content, server.etag = content, new_etag
    download(server.address, path)
    assert path.read_bytes() == content


def test_a_partial_download_from_another_address_is_not_continued(server, tmp_path):
    path = tmp_path / "set.tar.gz"
    interrupt_download(server, path)
    download(server.address + "?download=1", path)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, None]


def test_a_missing_connection_is_reported_at_once(closed_address, tmp_path):
    with pytest.raises(Unreachable, match="refused|10061"):
        download(closed_address, tmp_path / "set.tar.gz")
    assert not list(tmp_path.iterdir())


def test_a_refusal_by_the_server_is_reported(server, tmp_path):
    server.status = 404
    with pytest.raises(Unreachable, match="404"):
        download(server.address, tmp_path / "set.tar.gz")
    server.status, server.kind = 200, "text/html; charset=utf-8"
    with pytest.raises(Unreachable, match="web page"):
        download(server.address, tmp_path / "set.tar.gz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "address",
    ["http://example.org/a.zip", "http://localhost.example.org/a", "http://127.0.0.1@example.org/a"]
    + ["ftp://example.org/a", "https:///a", "data:,a", "//example.org/a", "http://[::1/a", "https"]
    + ["file:///etc/passwd"],
)
def test_insecure_addresses_are_not_downloaded(tmp_path, address):
    assert not is_safe(address)
    with pytest.raises(InputError, match="must begin with https://"):
        download(address, tmp_path / "set.tar.gz")


@pytest.mark.parametrize(
    "address", ["https://example.org/a", "http://localhost:8/a", "http://[::1]/a"]
)
def test_https_and_localhost_are_secure(address):
    assert is_safe(address)


@pytest.mark.parametrize("leads_to", ["http://example.org/a", "file:///etc/passwd", "ftp://a/b"])
def test_redirects_to_insecure_addresses_are_refused(server, tmp_path, leads_to):
    server.leads_to = leads_to
    with pytest.raises(Unreachable, match="which is not https|not allowed"):
        download(server.address, tmp_path / "set.tar.gz")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_reported_before_the_download(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**6, 10**6 - 1000, 1000)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(InputError, match="set.tar.gz needs at least 0 MB, .*: make room"):
        download(server.address, tmp_path / "set.tar.gz")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- unpack

FILES = {"set/B/one.png": b"1" * 700, "set/M/two.png": bytes(range(256)) * 300, "set/read.me": b""}


def pack_tar(path, members=()):
    """A tar file of `FILES` and then of `members`, pairs of a TarInfo and its content."""
    with tarfile.open(path, "w:" if path.suffix == ".tar" else "w:gz") as tar:
        folder = tarfile.TarInfo("set/B")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        plain = [(tarfile.TarInfo(name), content) for name, content in FILES.items()]
        for member, content in [*plain, *members]:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def pack_zip(path, members=()):
    """A zip file of `FILES` and then of `members`, pairs of a ZipInfo or name and its content."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for member, content in [*FILES.items(), *members]:
            packed.writestr(member, content)
    return path


def read_files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != archives.UNPACKED
    }


def refused(archive, folder, match):
    """`unpack` refuses the archive with one sentence and leaves no files."""
    before = sorted(path.name for path in folder.parent.iterdir())
    with pytest.raises(InputError, match=match) as caught:
        unpack(archive, folder)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in folder.parent.iterdir()) == before


@pytest.mark.parametrize("name", ["set.tar.gz", "set.tgz", "set.tar", "set.zip", "set.bin"])
def test_archives_are_unpacked_as_they_were_packed(tmp_path, name):
    archive = (pack_zip if name == "set.zip" else pack_tar)(tmp_path / name)
    unpack(archive, tmp_path / "set")
    assert read_files(tmp_path / "set") == FILES
    seen = (archives.unpacked_mark(archive), file_hash(archive))
    assert archives.unpacked_from(tmp_path / "set") == seen
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", name]


def test_an_empty_target_folder_is_allowed_and_a_full_one_is_not(tmp_path):
    archive, folder = pack_zip(tmp_path / "set.zip"), tmp_path / "set"
    folder.mkdir()
    unpack(archive, folder)
    (folder / "mine.png").write_bytes(b"mine")
    refused(archive, folder, "already exists")
    assert (folder / "mine.png").read_bytes() == b"mine"


OUTSIDE = ["../evil.png", "set/../../evil.png", "/evil.png", "C:\\evil.png", "..\\evil.png"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("pack", [pack_tar, pack_zip])
def test_members_outside_the_target_are_refused(tmp_path, pack, name):
    made = tarfile.TarInfo(name) if pack is pack_tar else zipfile.ZipInfo(name)
    archive = pack(tmp_path / "set.tar.gz", [(made, b"evil")])
    (tmp_path / "data").mkdir()
    refused(archive, tmp_path / "data" / "set", "evil.png.* outside the folder")
    assert not list(tmp_path.rglob("evil.png"))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    member = tarfile.TarInfo("set/B/three.png")
    member.type, member.linkname = kind, "set/B/one.png"
    archive = pack_tar(tmp_path / "set.tar.gz", [(member, b"")])
    refused(archive, tmp_path / "set", "set/B/three.png.* a link, a device or sparse")


def test_a_link_in_a_zip_becomes_a_text_file(tmp_path):
    member = zipfile.ZipInfo("set/B/three.png")
    member.external_attr = 0o120777 << 16
    unpack(pack_zip(tmp_path / "set.zip", [(member, b"/etc/passwd")]), tmp_path / "set")
    made = tmp_path / "set" / "set" / "B" / "three.png"
    assert not made.is_symlink() and made.read_bytes() == b"/etc/passwd"


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize("pack", [pack_tar, pack_zip])
def test_permissions_follow_the_umask_and_not_the_archive(tmp_path, pack):
    if pack is pack_tar:
        member = tarfile.TarInfo("set/run.sh")
        member.mode = 0o4777
    else:
        member = zipfile.ZipInfo("set/run.sh")
        member.external_attr = 0o104777 << 16
    archive, before = pack(tmp_path / "set.tar.gz", [(member, b"#!/bin/sh")]), os.umask(0o027)
    try:
        unpack(archive, tmp_path / "set")
    finally:
        os.umask(before)
    assert (tmp_path / "set" / "set" / "run.sh").stat().st_mode & 0o7777 == 0o640


def test_an_encrypted_zip_is_refused(tmp_path):
    archive = pack_zip(tmp_path / "set.zip")
    whole = bytearray(archive.read_bytes())
    whole[whole.index(b"PK\1\2") + 8] |= 1  # the flag of the first member, in the directory
    archive.write_bytes(whole)
    refused(archive, tmp_path / "set", "is encrypted: unpack it yourself and name the folder")


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.9, 1])
@pytest.mark.parametrize("name", ["set.tar.gz", "set.tar", "set.zip"])
def test_truncated_archives_leave_no_files(tmp_path, name, share):
    archive = (pack_zip if name == "set.zip" else pack_tar)(tmp_path / name)
    whole = archive.read_bytes()
    # A tar file ends with zeros, which only mark the end: without them it is cut, too.
    last = len(whole.rstrip(b"\0")) if name == "set.tar" else len(whole) - 1
    archive.write_bytes(whole[: int(share * last)])
    refused(archive, tmp_path / "set", "damaged, incomplete.*download it again")


def test_a_tar_cut_between_two_members_is_detected(tmp_path):
    archive = pack_tar(tmp_path / "set.tar")
    with tarfile.open(archive) as tar:
        second = tar.getmembers()[1]
    archive.write_bytes(archive.read_bytes()[: second.offset])
    refused(archive, tmp_path / "set", "the end is missing")


@pytest.mark.parametrize("name", ["set.tar.gz", "set.zip"])
def test_a_flipped_bit_is_detected(tmp_path, name):
    archive = tmp_path / name
    plain = [(f"set/{n}.png", bytes([n]) * 999) for n in range(9)]
    if name == "set.zip":
        with zipfile.ZipFile(
            archive, "w"
        ) as packed:  # stored uncompressed: only the checksum shows it
            for member, content in plain:
                packed.writestr(member, content)
        damaged = archive.read_bytes().replace(bytes([3]) * 999, bytes([3]) * 998 + b"?")
    else:
        pack_tar(archive)
        damaged = bytearray(archive.read_bytes())
        damaged[-8] ^= 1  # where gzip keeps its checksum
    archive.write_bytes(damaged)
    refused(archive, tmp_path / "set", "damaged, incomplete")


def test_a_file_that_is_not_an_archive_is_named(tmp_path):
    archive = tmp_path / "set.tar.gz"
    for content in (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", b"neither" * 1000):
        archive.write_bytes(content)
        refused(archive, tmp_path / "set", "or not an archive .*download it again")


@pytest.mark.parametrize("pack", [pack_tar, pack_zip])
def test_an_archive_larger_than_the_disk_is_refused(tmp_path, monkeypatch, pack):
    member = tarfile.TarInfo if pack is pack_tar else zipfile.ZipInfo
    archive = pack(tmp_path / "set.tar.gz", [(member("set/big.png"), bytes(2_000_000))])
    usage = namedtuple("usage", "total used free")(10**7, 9 * 10**6, 10**6)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: usage)
    refused(archive, tmp_path / "set", "needs at least 2 MB, .* 1 MB left: make room")


# -------------------------------------------------------- false names and sizes


def test_a_zip_member_larger_than_declared_is_damaged(tmp_path):
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("set/zeros.png", bytes(2_000_000))
    right, wrong = struct.pack("<I", 2_000_000), struct.pack("<I", 10)
    assert archive.read_bytes().count(right) == 2  # in the member's header and in the directory
    archive.write_bytes(archive.read_bytes().replace(right, wrong))
    refused(archive, tmp_path / "set", "damaged, incomplete.*CRC")


# --------------------------------------------------------------- archive bombs


@pytest.fixture
def little(monkeypatch):
    """Low limits, for small archives: ten times its size plus 100 kB, and five members."""
    monkeypatch.setattr(archives, "MOST_TIMES", 10)
    monkeypatch.setattr(archives, "MOST_BYTES", 100_000)
    monkeypatch.setattr(archives, "MOST_MEMBERS", 5)


def sparse_header(size):
    """The header of an old GNU sparse file: `size` bytes that are nowhere in the archive."""
    header = bytearray(tarfile.TarInfo("set/sparse.png").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:410] = b"%011o\0%011o\0" % (size, 0)
    header[483:495] = b"%011o\0" % size
    header[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(header))[0]
    return bytes(header)


def test_a_sparse_member_is_refused(tmp_path):
    archive = tmp_path / "set.tar"
    archive.write_bytes(sparse_header(400_000_000) + bytes(1024))
    with tarfile.open(archive) as tar:
        assert tar.getmembers()[0].size == 400_000_000 and archive.stat().st_size == 1536
    refused(archive, tmp_path / "set", "'set/sparse.png' is a link, a device or sparse; get the")


@pytest.mark.parametrize("pack", [pack_tar, pack_zip])
def test_an_archive_that_expands_excessively_is_refused(tmp_path, little, pack):
    zeros = tarfile.TarInfo("set/zeros.png") if pack is pack_tar else "set/zeros.png"
    archive = pack(tmp_path / "set.tar.gz", [(zeros, bytes(3_000_000))])
    refused(
        archive, tmp_path / "set", "it would grow to more than 0 MB, 10 times its size and more"
    )


def test_zeros_after_the_end_of_a_tar_count_towards_the_limit(tmp_path, little):
    archive = tmp_path / "set.tar.gz"
    plain = pack_tar(tmp_path / "plain.tar").read_bytes()
    archive.write_bytes(gzip.compress(plain + bytes(3_000_000)))
    refused(archive, tmp_path / "set", "it would grow to more than 0 MB")


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE])
@pytest.mark.parametrize("pack", [pack_tar, pack_zip])
def test_too_many_members_are_refused(tmp_path, little, pack, kind):
    members = [f"set/{number}{'/' * (kind == tarfile.DIRTYPE)}" for number in range(6)]
    if pack is pack_tar:
        members = [tarfile.TarInfo(name) for name in members]
        for member in members:
            member.type = kind
    archive = pack(tmp_path / "set.tar.gz", [(member, b"") for member in members])
    refused(archive, tmp_path / "set", "it has more than 5 members; unpack it yourself")


def test_published_sets_are_within_the_limits():
    """BreaKHis: 4 GB of PNG in 7,909 files; the FNAC patches: fewer. PNG does not compress."""
    assert archives.MOST_MEMBERS > 20 * 7909
    assert archives.MOST_TIMES * 4e9 + archives.MOST_BYTES > 40 * 4e9


def test_overlapping_zip_members_are_counted_separately(tmp_path, little):
    """Five members share the same 90 kB of zeros, stored in the archive once."""
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for number in range(5):
            packed.writestr(f"set/{number}.png", bytes(90_000) if number == 0 else b"")
        for member in packed.infolist()[1:]:
            first = packed.infolist()[0]
            member.header_offset, member.CRC = first.header_offset, first.CRC
            member.file_size, member.compress_size = first.file_size, first.compress_size
    refused(archive, tmp_path / "set", "it would grow to more than 0 MB")


@pytest.mark.parametrize("kind", [b"g", b"x", b"L", b"0"])
def test_a_header_with_a_negative_size_is_damaged(tmp_path, kind):
    header = bytearray(tarfile.TarInfo("set/a.png").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = kind
    header[124:136] = b"\xff" * 11 + b"\x00"  # base 256: -256
    header[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(header))[0]
    archive = tmp_path / "set.tar"
    archive.write_bytes(bytes(header) + bytes(1024))
    refused(archive, tmp_path / "set", "damaged, incomplete")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_an_oversized_header_is_not_read(tmp_path, kind):
    """195 kB of gzip may hold 200 MB, which `tarfile` would read at once."""
    long = tarfile.TarInfo("long")
    long.type = kind
    archive = pack_tar(tmp_path / "set.tar.gz", [(long, bytes(archives.MOST_HEADER + 1))])
    refused(archive, tmp_path / "set", r"damaged, incomplete.* \(a header of 1,000,001 bytes")


@pytest.mark.parametrize("pack", [pack_tar, pack_zip])
def test_a_member_nested_too_deeply_is_refused(tmp_path, pack):
    member = tarfile.TarInfo if pack is pack_tar else zipfile.ZipInfo
    archive = pack(tmp_path / "set.tar.gz", [(member("a/" * 1500 + "x.png"), b"x")])
    refused(
        archive, tmp_path / "set", r"its member 'a/a/.*'\.\.\. is in more than 100 nested folders"
    )


def test_endless_nested_headers_are_damaged(tmp_path):
    header = tarfile.TarInfo("x")
    header.type = tarfile.XHDTYPE
    archive = tmp_path / "set.tar.gz"
    archive.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) * 5000))
    refused(archive, tmp_path / "set", "damaged, incomplete")
