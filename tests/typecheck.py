"""The checker of annotations that the tests put around the library.

It is beartype with the numeric tower of PEP 484, as mypy and readers understand annotations: where
a `float` is declared, an `int` will do.
"""

from beartype import BeartypeConf, beartype

with_numeric_tower = beartype(conf=BeartypeConf(is_pep484_tower=True))
