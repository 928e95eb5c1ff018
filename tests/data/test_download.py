import hashlib
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cxrtut.data import download as module
from cxrtut.data.download import DownloadError, check_free_space, download

CONTENT = bytes(range(256)) * 4000  # about a megabyte
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Behaviour:
    """What the server does, and what it was asked."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.knows_range = True
        self.break_after: list[int] = []  # bytes after which each connection is cut, one by one
        self.status: list[int] = []  # answers before the content
        self.ranges: list[str | None] = []
        self.kind = "application/octet-stream"
        self.wait = threading.Event()  # before the second half of the content
        self.wait.set()


@pytest.fixture
def server():
    """A server on the loopback interface, with its behaviour and its address."""
    behaviour = Behaviour()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            behaviour.ranges.append(asked)
            if behaviour.status:
                self.send_error(behaviour.status.pop(0))
                return
            start = 0
            total = len(behaviour.content)
            if asked and behaviour.knows_range:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                if start >= total:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{total}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            else:
                self.send_response(200)
            self.send_header("Content-Type", behaviour.kind)
            self.send_header("Content-Length", str(total - start))
            self.end_headers()
            end = total
            if behaviour.break_after:
                end = min(total, start + behaviour.break_after.pop(0))
            middle = max(start, end // 2)
            with suppress(ConnectionError):  # who does not want it goes away
                self.wfile.write(behaviour.content[start:middle])
                behaviour.wait.wait(10)
                self.wfile.write(behaviour.content[middle:end])
            self.close_connection = True

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        behaviour.url = f"http://127.0.0.1:{httpd.server_port}/file.bin"
        yield behaviour
        httpd.shutdown()
        thread.join()


def fetch(server, path, **options):
    return download(server.url, path, **({"pause": 0.0, "quiet": True, "timeout": 5.0} | options))


def test_a_file_arrives_whole_in_a_folder_that_was_not_there(server, tmp_path):
    path = fetch(server, tmp_path / "new" / "file.bin", sha256=SHA256.upper())
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]


def test_an_interrupted_transfer_is_taken_up_where_it_stopped(server, tmp_path):
    server.break_after = [300_000, 400_000]
    path = fetch(server, tmp_path / "file.bin", sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-", "bytes=700000-"]


def test_a_later_run_resumes_from_the_part_file(server, tmp_path):
    server.break_after = [300_000, 0, 0]
    with pytest.raises(DownloadError, match="run again to resume at 300 kB"):
        fetch(server, tmp_path / "file.bin", attempts=2)
    assert not (tmp_path / "file.bin").exists()
    assert (tmp_path / "file.bin.part").stat().st_size == 300_000
    server.break_after = []
    assert fetch(server, tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=300000-"


def test_a_server_that_ignores_range_sends_all_from_the_start(server, tmp_path):
    server.knows_range = False
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    assert fetch(server, tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_server_that_ignores_range_and_always_breaks_is_given_up(server, tmp_path):
    server.knows_range = False
    server.break_after = [1000] * 20
    with pytest.raises(DownloadError, match="run again"):
        fetch(server, tmp_path / "file.bin", attempts=3)
    assert len(server.ranges) <= 4


def test_a_wrong_checksum_removes_the_file_and_says_both(server, tmp_path):
    with pytest.raises(DownloadError, match=f"expected SHA-256 {'0' * 64}, got {SHA256}"):
        fetch(server, tmp_path / "file.bin", sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_part_file_that_is_complete_is_only_renamed(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    assert fetch(server, tmp_path / "file.bin", sha256=SHA256).read_bytes() == CONTENT
    assert len(server.ranges) == 1


def test_a_part_file_that_is_too_long_is_thrown_away(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT + b"more")
    assert fetch(server, tmp_path / "file.bin", sha256=SHA256).read_bytes() == CONTENT


def test_what_is_there_already_is_not_fetched_again(server, tmp_path):
    (tmp_path / "file.bin").write_bytes(CONTENT)
    fetch(server, tmp_path / "file.bin", sha256=SHA256)
    fetch(server, tmp_path / "file.bin")
    assert server.ranges == []
    (tmp_path / "file.bin").write_bytes(b"something else")
    assert fetch(server, tmp_path / "file.bin", sha256=SHA256).read_bytes() == CONTENT


def test_a_busy_server_is_asked_again_and_a_refusal_is_final(server, tmp_path):
    server.status = [503, 429]
    assert fetch(server, tmp_path / "file.bin").read_bytes() == CONTENT
    server.status = [404]
    with pytest.raises(DownloadError, match="the server answers 404"):
        fetch(server, tmp_path / "other.bin")
    assert len(server.ranges) == 4


def test_nobody_at_the_address_is_an_error_with_the_address(tmp_path):
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:9/x: .*run again"):
        download("http://127.0.0.1:9/x", tmp_path / "x", attempts=2, pause=0.0, quiet=True)


def test_too_little_room_is_said_before_the_download(server, tmp_path, monkeypatch):
    check_free_space(tmp_path / "not" / "yet" / "there", 1)
    with pytest.raises(DownloadError, match="of free space"):
        check_free_space(tmp_path, 10**18)
    monkeypatch.setattr("cxrtut.data.download.shutil.disk_usage", lambda _: _Usage(1000))
    with pytest.raises(DownloadError, match=r"expected 1\.02 MB of free space, got 1 kB"):
        fetch(server, tmp_path / "file.bin")


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


def test_a_full_disk_is_final(server, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cxrtut.data.download._copy", full)
    with pytest.raises(DownloadError, match="cannot be written: No space left"):
        fetch(server, tmp_path / "file.bin")
    assert len(server.ranges) == 1


def test_progress_is_told_seldom_when_nobody_watches_and_its_end_always(server, tmp_path, capsys):
    fetch(server, tmp_path / "file.bin", quiet=False)
    told = capsys.readouterr().err
    assert "file.bin: 100%" in told and "1.02M/1.02M" in told
    assert told.count("\r") <= 2 and told.endswith("\n")
    fetch(server, tmp_path / "quiet.bin", quiet=True)
    assert capsys.readouterr().err == ""


def test_the_progress_of_a_resumed_transfer_counts_what_was_there(server, tmp_path, capsys):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[: len(CONTENT) // 2])
    fetch(server, tmp_path / "file.bin", quiet=False)
    told = capsys.readouterr().err
    assert "file.bin:  50%" in told and "file.bin: 100%" in told


def test_of_two_calls_for_one_file_one_fetches_it_and_the_other_waits(server, tmp_path):
    server.wait.clear()
    path, results = tmp_path / "file.bin", []
    both = [threading.Thread(target=lambda: results.append(fetch(server, path))) for _ in range(2)]
    for thread in both:
        thread.start()
        while not server.ranges:  # until the first one is in the middle of it
            time.sleep(0.01)
    time.sleep(0.2)
    server.wait.set()
    for thread in both:
        thread.join()
    assert results == [path, path] and path.read_bytes() == CONTENT
    assert server.ranges == [None]
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


def test_who_waited_fetches_the_rest_where_the_first_one_failed(server, tmp_path):
    server.wait.clear()
    server.break_after = [400_000]
    path, results = tmp_path / "file.bin", []

    def first():
        try:
            fetch(server, path, attempts=1)
        except DownloadError as error:
            results.append(str(error))

    both = [threading.Thread(target=target) for target in (first, lambda: fetch(server, path))]
    for thread in both:
        thread.start()
        while not server.ranges:
            time.sleep(0.01)
    server.wait.set()
    for thread in both:
        thread.join()
    assert "run again to resume at 400 kB" in results[0]
    assert path.read_bytes() == CONTENT and server.ranges == [None, "bytes=400000-"]


def test_a_file_is_complete_by_its_size_and_not_by_what_was_counted(server, tmp_path, monkeypatch):
    path, copy = tmp_path / "file.bin", module._copy

    def disturbed(response, file, *rest):
        copy(response, file, *rest)
        if len(server.ranges) == 1:
            with open(f"{path}.part", "ab") as other:
                other.write(b"of a program that knows no locks")

    monkeypatch.setattr(module, "_copy", disturbed)
    assert fetch(server, path).read_bytes() == CONTENT
    assert len(server.ranges) == 3  # too much; nothing beyond the end; from the start


def test_a_page_in_the_place_of_a_file_is_refused_and_what_was_there_is_kept(server, tmp_path):
    server.break_after = [300_000, 0]
    with pytest.raises(DownloadError, match="run again"):
        fetch(server, tmp_path / "file.bin", attempts=1)
    good, server.content = server.content, b"<html>please log in to the network</html>"
    server.kind, server.knows_range, server.break_after = "text/html; charset=utf-8", False, []
    with pytest.raises(DownloadError, match="expected a file, got a page of the kind text/html"):
        fetch(server, tmp_path / "file.bin")
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin.part"]
    server.content, server.kind, server.knows_range = good, "application/octet-stream", True
    assert fetch(server, tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=300000-"


def test_a_file_that_begins_otherwise_gets_no_name_and_is_fetched_again(server, tmp_path):
    path, start = tmp_path / "file.bin", CONTENT[:4]
    server.content = b"<html>please log in to the network</html>"
    with pytest.raises(DownloadError, match=r"begins with b'.*', got b'<html>please log in"):
        fetch(server, path, begins_with=start)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(server.content)  # as a former version has left it
    server.content = CONTENT
    assert fetch(server, path, begins_with=start).read_bytes() == CONTENT
    fetch(server, path, begins_with=start)
    assert len(server.ranges) == 2


def test_a_refusal_leaves_no_empty_file(server, tmp_path):
    server.status = [404]
    with pytest.raises(DownloadError, match="404"):
        fetch(server, tmp_path / "file.bin")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=r"file\.bin\.part: cannot be written: File exists"):
        fetch(server, tmp_path / "file" / "file.bin")
    assert server.ranges == []
