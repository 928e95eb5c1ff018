"""A download that survives interruptions: it resumes where it stopped, and a file is whole or it is
not there.

Bytes arrive in `<name>.part`; when all have come (and they are those that were expected, as far as
that is known) the file gets its name. Two processes that want one file do not disturb each other:
one fetches it, the other waits.
"""

import errno
import hashlib
import http.client
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

try:
    import fcntl
except ModuleNotFoundError:  # Windows: nobody waits there
    fcntl = None  # type: ignore[assignment]

_CHUNK = 1 << 20
_SECONDS_BETWEEN_REPORTS = 10.0  # in a log that nobody watches


class DownloadError(Exception):
    """A download that did not succeed; says which address and why."""


def download(
    url: str,
    path: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    begins_with: bytes = b"",
    attempts: int = 5,
    timeout: float = 60.0,
    pause: float = 2.0,
    quiet: bool = False,
) -> Path:
    """Fetch `url` into the file `path`. A file that is there (with the right checksum and the right
    first bytes, if known) is not fetched again.

    A connection that breaks is taken up again by an HTTP Range request; a server that does not know
    Range sends all from the start. Progress goes to stderr, one bar for each connection; where
    stderr is no terminal it is brought up to date every ten seconds only.

    Args:
        url: http or https.
        path: the file to make; its folder is made too.
        sha256: hexadecimal; None if nobody published one.
        begins_with: the first bytes of any file of this kind; a page to log in has others.
        attempts: connections that may fail in a row without bringing a single byte.
        timeout: seconds without a byte after which a connection counts as broken.
        pause: seconds before the second attempt; doubled for each further one.
        quiet: no progress.

    Raises:
        DownloadError: refused by the server, no room on the disk, too many failures, a web page in
            the place of a file; or the wrong checksum or first bytes (then what came is removed:
            resuming it would not help).
    """
    path = Path(path)
    if _is_the_one(path, sha256, begins_with):
        return path
    part = path.with_name(path.name + ".part")
    with _alone(part, quiet):
        if _is_the_one(path, sha256, begins_with):  # another process has fetched it meanwhile
            return path
        _fetch(url, part, attempts=attempts, timeout=timeout, pause=pause, quiet=quiet)
        start = _first_bytes(part, max(len(begins_with), 40))
        if not start.startswith(begins_with):
            part.unlink()
            raise DownloadError(
                f"{url}: expected a file that begins with {begins_with!r}, got {start!r}...; "
                "file removed"
            )
        found = None if sha256 is None else _sha256(part)
        if sha256 is not None and found != sha256.lower():
            part.unlink()
            raise DownloadError(
                f"{url}: expected SHA-256 {sha256.lower()}, got {found}; file removed"
            )
        os.replace(part, path)
    return path


def _is_the_one(path: Path, sha256: str | None, begins_with: bytes) -> bool:
    """Whether the file is there, and nothing that is known speaks against it."""
    if not path.is_file() or _first_bytes(path, len(begins_with)) != begins_with:
        return False
    return sha256 is None or _sha256(path) == sha256.lower()


def _first_bytes(path: Path, n: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(n)


@contextmanager
def _alone(part: Path, quiet: bool) -> Iterator[None]:
    """Nobody else writes into the file meanwhile: who comes later waits. An empty file is not left
    behind.
    """
    while True:
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            file = open(part, "ab")  # noqa: SIM115, what fails below is not of the disk
        except OSError as error:
            raise DownloadError(f"{part}: cannot be written: {error.strerror}") from error
        with file:
            _lock(file, part, quiet)
            if not _is_still(file, part):  # the other one has finished, and renamed or removed it
                continue
            try:
                yield
            finally:
                with suppress(OSError):
                    if _is_still(file, part) and part.stat().st_size == 0:
                        part.unlink()
            return


def _lock(file: BinaryIO, part: Path, quiet: bool) -> None:
    if fcntl is None:
        return
    with suppress(OSError):  # not every network disk knows locks
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not quiet:
                told = f"{part.stem}: another process is fetching it; waiting"
                print(told, file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)


def _is_still(file: BinaryIO, path: Path) -> bool:
    """Whether the open file is the one of this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _fetch(
    url: str, part: Path, *, attempts: int, timeout: float, pause: float, quiet: bool
) -> None:
    """Connections, one after the other, until the file is complete."""
    failures, complete = 0, False
    while not complete:
        before = _length(part)
        try:
            complete = _fetch_rest(url, part, timeout, quiet)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500 and error.code not in (408, 429):
                raise DownloadError(
                    f"{url}: the server answers {error.code} {error.reason}"
                ) from error
            reason = f"{error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and _is_of_the_disk(error):
                raise DownloadError(f"{part}: cannot be written: {error.strerror}") from error
            reason = str(error) or type(error).__name__
        else:
            reason = "the connection ended early"
        if not complete:
            now = _length(part)
            failures = 1 if now > before else failures + 1
            if failures >= attempts:
                raise DownloadError(f"{url}: {reason}; run again to resume at {_size(now)}")
            time.sleep(pause * 2 ** (failures - 1))


def check_free_space(folder: str | os.PathLike[str], needed: int) -> None:
    """Raise DownloadError unless the disk of `folder` (or of its nearest existing parent) has
    `needed` free bytes.
    """
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise DownloadError(f"{folder}: expected {_size(needed)} of free space, got {_size(free)}")


def _fetch_rest(url: str, part: Path, timeout: float, quiet: bool) -> bool:
    """One connection; True when the file is complete afterwards."""
    have = _length(part)
    request = urllib.request.Request(
        url, headers={"User-Agent": "cxrtut", "Accept-Encoding": "identity"}
    )
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # nothing lies beyond what is there: complete, unless the server has another file by now
        there = error.headers.get("Content-Range", "").rpartition("/")[2]
        error.close()
        if there == str(have):
            return True
        os.truncate(part, 0)
        return False
    with response:
        kind = response.headers.get_content_type()
        if kind == "text/html" and Path(part.stem).suffix.lower() not in (".html", ".htm"):
            raise DownloadError(
                f"{url}: expected a file, got a page of the kind {kind} (one to log in?)"
            )
        resumed = response.status == 206 and _starts_at(response, have)
        start = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        if total is not None:
            check_free_space(part.parent, total - start)
        with open(part, "ab" if resumed else "wb") as file:
            _copy(response, file, start, total, None if quiet else part.stem)
            file.flush()
            os.fsync(file.fileno())
    return total is None or _length(part) == total


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _is_of_the_disk(error: OSError) -> bool:
    """Whether the disk refused, not the network: then another attempt would not help."""
    return error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT)


def _starts_at(response: http.client.HTTPResponse, have: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _copy(
    response: http.client.HTTPResponse,
    file: BinaryIO,
    done: int,
    total: int | None,
    name: str | None,
) -> None:
    bar = tqdm(
        desc=name,
        initial=done,
        total=total,
        unit="B",
        unit_scale=True,
        mininterval=0.2 if sys.stderr.isatty() else _SECONDS_BETWEEN_REPORTS,
        disable=name is None,
    )
    with bar:
        try:
            while chunk := response.read1(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        finally:
            file.flush()


def _size(n_bytes: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.3g} {unit}"
    return f"{n_bytes} bytes"


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
