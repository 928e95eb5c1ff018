"""Records, claims and networks that travel with the library, or are fetched once."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pooch
import pytest
from records.test_run_record import a_record

from cxrtut.files import sha256_of_file
from cxrtut.records import recorded
from cxrtut.records.run_record import RecordError, Weights, write_record


def test_a_record_is_read_by_its_name(tmp_path):
    write_record(tmp_path / "one.json", a_record())
    assert recorded.read_record("one", tmp_path) == a_record()


def test_a_missing_record_is_named_with_those_there_are(tmp_path):
    write_record(tmp_path / "one.json", a_record())
    with pytest.raises(FileNotFoundError, match=r"no record 'two'.*; there are one$"):
        recorded.read_record("two", tmp_path)


def test_claims_travel_with_the_library():
    assert recorded.claims_file("biomarker") == recorded.CLAIMS / "biomarker.yml"
    with pytest.raises(FileNotFoundError, match=r"no claims of 'x'.*biomarker, disease_masks"):
        recorded.claims_file("x")


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "here" / "a.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"numbers")
    return Weights("a.safetensors", sha256_of_file(path))


def test_a_file_that_is_there_is_taken_if_it_is_the_one(tmp_path, weights, monkeypatch):
    monkeypatch.setattr(pooch, "retrieve", None)  # would fail, were it called
    here = tmp_path / "here"
    assert recorded.weights_file(weights, here) == here / "a.safetensors"
    with pytest.raises(RecordError, match=r"expected SHA-256 000000000000\.\.\., got"):
        recorded.weights_file(Weights("a.safetensors", "0" * 64), here)


def test_without_a_checkout_weights_are_fetched_by_their_hash(tmp_path, weights, monkeypatch):
    asked = []

    def retrieve(url, known_hash, fname, path):
        asked.append((url, known_hash, fname, Path(path)))
        return str(tmp_path / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    name = f"{weights.sha256[:12]}-a.safetensors"  # a later one of the name is another file
    assert recorded.weights_file(weights, tmp_path / "absent") == tmp_path / name
    assert asked == [
        (
            f"{recorded.PUBLISHED}a.safetensors", f"sha256:{weights.sha256}", name,
            Path(pooch.os_cache("cxrtut")),
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "expected", "told"),
    [
        (OSError("offline"), FileNotFoundError, "a.safetensors is neither here nor online"),
        (ValueError("SHA256 hash of downloaded file"), RecordError, "hash of downloaded file"),
    ],
)
def test_what_cannot_be_fetched_is_told(tmp_path, weights, monkeypatch, error, expected, told):
    def retrieve(*given, **named):
        raise error

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(expected, match=told):
        recorded.weights_file(weights, tmp_path / "absent")


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """What a server at the published address answers, one after the other; the cache is empty."""
    waiting = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if not waiting:
                self.send_error(404)
                return
            content = waiting.pop(0)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    monkeypatch.setattr(pooch, "os_cache", lambda _: tmp_path / "cache")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setattr(recorded, "PUBLISHED", f"http://127.0.0.1:{server.server_port}/")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield waiting
        server.shutdown()
        thread.join()


def test_a_login_page_is_no_weights_and_the_next_try_fetches_them(tmp_path, weights, answers):
    answers += [b"<html>please log in to the network</html>", b"numbers"]
    with pytest.raises(RecordError, match=r"a\.safetensors: .*SHA256"):
        recorded.weights_file(weights, tmp_path / "absent")
    assert list((tmp_path / "cache").iterdir()) == []
    assert recorded.weights_file(weights, tmp_path / "absent").read_bytes() == b"numbers"
    assert recorded.weights_file(weights, tmp_path / "absent").read_bytes() == b"numbers"
    assert answers == []


def test_a_bad_file_in_the_cache_is_fetched_again(tmp_path, weights, answers):
    answers += [b"numbers"]
    (tmp_path / "cache").mkdir()
    kept = tmp_path / "cache" / f"{weights.sha256[:12]}-a.safetensors"
    kept.write_bytes(b"num")
    assert recorded.weights_file(weights, tmp_path / "absent") == kept
    assert kept.read_bytes() == b"numbers" and answers == []


def test_an_address_that_knows_no_weights_is_told(tmp_path, weights, answers):
    with pytest.raises(FileNotFoundError, match="is neither here nor online"):
        recorded.weights_file(weights, tmp_path / "absent")
