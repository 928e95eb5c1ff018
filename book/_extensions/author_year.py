"""A bibliography whose labels are the author and year that the text cites: "Kim et al., 2021a".

The reference style of that name in sphinxcontrib-bibtex writes the citations; pybtex has no labels
to match. Two works of the same authors and year carry a letter in `year` in references.bib.
"""

from collections.abc import Iterable, Iterator

from pybtex.database import Entry
from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style
from pybtex.style.labels import BaseLabelStyle
from sphinx.application import Sphinx


class AuthorYearLabels(BaseLabelStyle):
    """Labels as in the text: one name, two names, or the first name and others."""

    def format_labels(self, sorted_entries: Iterable[Entry]) -> Iterator[str]:
        for entry in sorted_entries:
            # The "rich" names are those whose LaTeX accents and braces are resolved.
            people = [person.rich_last_names for person in entry.persons["author"]]
            names = [" ".join(str(part) for part in parts) for parts in people]
            authors = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
            yield f"{authors}, {entry.fields['year']}"


class AuthorYear(Style):
    default_label_style = AuthorYearLabels


def setup(app: Sphinx) -> dict[str, bool]:
    register_plugin("pybtex.style.formatting", "author_year", AuthorYear)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
