"""What a built page loads from elsewhere, and the files that are kept so that it loads nothing."""

import base64
import hashlib
import importlib.util
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

BOOK = Path(__file__).resolve().parents[1] / "book"
_spec = importlib.util.spec_from_file_location("offline_of_the_book", BOOK / "offline.py")
assert _spec is not None and _spec.loader is not None
offline = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(offline)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('<script async src="https://cdn.org/a.js"></script>', ["https://cdn.org/a.js"]),
        ('<link href="//fonts.org/a.css" rel="stylesheet">', ["//fonts.org/a.css"]),
        ('<img alt="x" src="http://a.org/b.png">', ["http://a.org/b.png"]),
        ('<style>@import "https://a.org/c.css";</style>', ["https://a.org/c.css"]),
        ("<p style=\"background: url('https://a.org/d.png')\">", ["https://a.org/d.png"]),
        ('<a href="https://a.org">a link is no load</a>', []),
        ('<link rel="canonical" href="https://a.org/page.html">', []),
        ('<script src="_static/../offline/requirejs/require.js"></script>', []),
        ("<img src='https://a.org/e.png'>", ["https://a.org/e.png"]),
        ("<img src=https://a.org/f.png>", ["https://a.org/f.png"]),
        (
            '<img src="g.png" srcset="g.png 1x, https://a.org/g.png 2x,//b.org/g.png 3x">',
            ["https://a.org/g.png", "//b.org/g.png"],
        ),
        ('<object data="https://a.org/h.svg"></object>', ["https://a.org/h.svg"]),
        ('<video poster="https://a.org/i.png" src="i.mp4">', ["https://a.org/i.png"]),
        ('<svg><image xlink:href="https://a.org/j.png"/></svg>', ["https://a.org/j.png"]),
        ('<script type=module>import("https://a.org/k.js")</script>', ["https://a.org/k.js"]),
        ("<script>import { l } from 'https://a.org/l.js';</script>", ["https://a.org/l.js"]),
        ("<LINK REL=icon HREF='https://a.org/m.ico'>", ["https://a.org/m.ico"]),
        ('<img src="https://a.org/n.png?a=1&amp;b=2">', ["https://a.org/n.png?a=1&b=2"]),
        ("<pre>import(&quot;https://a.org/o.js&quot;), url(https://a.org/p.png)</pre>", []),
        ('<!-- <img src="https://a.org/q.png"> -->', []),
        ('<script type="application/json">{"a": "fetch(\\"https://a.org\\")"}</script>', []),
        ('<script>const here = "https://a.org/r";</script>', []),
    ],
)
def test_loads_are_told_from_links(text: str, expected: list[str]) -> None:
    assert offline.external_loads(text) == expected


def test_a_package_that_was_tampered_with_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "requirejs.tgz"
    archive.write_bytes(b"something else")
    with pytest.raises(
        ValueError, match=r"requirejs\.tgz: expected sha512-AAAA, npm brought sha512-"
    ):
        offline.unpack(archive, "sha512-AAAA", ".*", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_files_of_a_package_get_a_folder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = tmp_path / "owner-thing-1.2.tgz"
    with tarfile.open(published, "w:gz") as archive:
        for name in ("package/a.js", "package/b.js"):
            archive.addfile(tarfile.TarInfo(name))
    digest = base64.b64encode(hashlib.sha512(published.read_bytes()).digest()).decode()
    asked = []

    def npm(command: list[str], cwd: str, **_: object) -> None:
        asked.append(command)
        shutil.copy(published, cwd)

    monkeypatch.setattr(offline.subprocess, "run", npm)
    packages = {"@owner/thing": ("1.2", f"sha512-{digest}", r"package/(a\.js)")}
    offline.fetch(packages, tmp_path / "out")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.js")] == [
        "out/thing/a.js"
    ]
    assert asked == [["npm", "pack", "--silent", "@owner/thing@1.2"]]


@pytest.mark.parametrize("error", [FileNotFoundError("npm"), subprocess.TimeoutExpired("npm", 120)])
def test_files_of_another_version_are_not_used_when_npm_brings_no_new_ones(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(offline.subprocess, "run", fail)
    folder = tmp_path / "vendor" / "offline"
    folder.mkdir(parents=True)
    (folder / "versions.txt").write_text("of last year")
    assert not offline.vendor(folder)
    assert not folder.exists()  # what the extension `offline_assets` looks for
    told = capsys.readouterr().out
    assert "will come from a CDN" in told and "the files of other versions are removed" in told
    assert not offline.vendor(folder)
    assert "removed" not in capsys.readouterr().out
