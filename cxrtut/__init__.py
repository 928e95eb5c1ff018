"""cxrtut: five papers on chest radiographs, re-implemented, tested and taught.

The names that a user needs, loaded when they are asked for: `load`, `evaluate`, `Prediction`,
`ArrayStore`, `ChestPhantom`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cxrtut.data.phantom import ChestPhantom
    from cxrtut.data.sample import Prediction
    from cxrtut.data.store import ArrayStore
    from cxrtut.experiments.pretrained import evaluate, load

__version__ = "0.1.0"
__all__ = ["ArrayStore", "ChestPhantom", "Prediction", "evaluate", "load"]
_HOMES = {
    "load": "cxrtut.experiments.pretrained",
    "evaluate": "cxrtut.experiments.pretrained",
    "Prediction": "cxrtut.data.sample",
    "ArrayStore": "cxrtut.data.store",
    "ChestPhantom": "cxrtut.data.phantom",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
