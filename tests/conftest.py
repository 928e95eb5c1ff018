"""Settings of the whole test run.

Shapes and types of every annotated function of the library are checked on every call: the import
hook below has to be in place before the first import of cxrtut.
"""

import os

# Before numpy and torch are imported: tests of small arrays are fastest on one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from jaxtyping import install_import_hook

install_import_hook("cxrtut", "typecheck.with_numeric_tower")
