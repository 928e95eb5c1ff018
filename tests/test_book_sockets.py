"""Two pages of one folder run at the same time, each with its own kernel."""

import shutil
import subprocess
import sys
from pathlib import Path

BOOK = Path(__file__).resolve().parents[1] / "book"
PAGE = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# NAME

```{code-cell} ipython3
:tags: [parameters]
preset = "paper"
seed = 0
```

```{code-cell} ipython3
import time

for _ in range(20):
    time.sleep(0.1)
print("this is NAME")
```
"""


def test_pages_of_one_folder_do_not_meet_in_each_others_kernels(tmp_path: Path) -> None:
    (tmp_path / "book" / "part").mkdir(parents=True)
    (tmp_path / "cxrtut").mkdir()
    (tmp_path / "cxrtut" / "__init__.py").write_text("")
    for path in BOOK.glob("*.py"):
        shutil.copy(path, tmp_path / "book" / path.name)
    for name in ("one", "two"):
        (tmp_path / "book" / "part" / f"{name}.md").write_text(PAGE.replace("NAME", name))
    command = [sys.executable, str(tmp_path / "book" / "build.py"), "run", "--jobs", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("one", "two"):
        text = (tmp_path / "build" / "executed" / "part" / f"{name}.ipynb").read_text()
        assert f"this is {name}\\n" in text
    left = [path.name for path in (tmp_path / "book" / "part").iterdir()]
    assert sorted(left) == ["one.md", "two.md"]
