"""Where the book, its notebooks, and what these install and load are published.

Notebooks and pages are published from a release tag, and so is what they load.
"""

PUBLISHED = "https://cxrtut.github.io/cxrtut/"
REPOSITORY = "https://github.com/cxrtut/cxrtut"
COLAB = "https://colab.research.google.com/github/cxrtut/cxrtut/blob/notebooks/"
COLAB_BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
RAW = "https://raw.githubusercontent.com/cxrtut/cxrtut/"


def page_in_the_book(page: str, anchor: str = "") -> str:
    """The published page of a name such as papers/biomarker."""
    return f"{PUBLISHED}{page}.html" + (f"#{anchor}" if anchor else "")


def notebook_on_colab(page: str) -> str:
    """The page as a notebook that Colab opens."""
    return f"{COLAB}{page}.ipynb"


def file_of_release(path: str, version: str) -> str:
    """A file of the repository as it was released, path from the root."""
    return f"{RAW}v{version}/{path}"


def library_of_release(version: str) -> str:
    """What pip installs."""
    return f"{REPOSITORY}/archive/refs/tags/v{version}.zip"
