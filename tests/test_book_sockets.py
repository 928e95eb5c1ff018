"""Two pages of one folder run at the same time, each with its own kernel."""

from pathlib import Path

from small_book import PARAMETERS, build, make_book, page

SLOW = 'import time\n\nfor _ in range(20):\n    time.sleep(0.1)\nprint("this is NAME")'


def test_pages_of_one_folder_do_not_meet_in_each_others_kernels(tmp_path: Path) -> None:
    pages = {
        f"part/{name}": page(PARAMETERS, SLOW.replace("NAME", name)) for name in ("one", "two")
    }
    make_book(tmp_path, pages)
    done = build(tmp_path, "run", "--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("one", "two"):
        text = (tmp_path / "build" / "executed" / "part" / f"{name}.ipynb").read_text()
        assert f"this is {name}\\n" in text
    left = [path.name for path in (tmp_path / "book" / "part").iterdir()]
    assert sorted(left) == ["one.md", "two.md"]
