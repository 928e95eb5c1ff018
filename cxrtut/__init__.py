"""cxrtut: five papers on chest radiographs, re-implemented, tested and taught."""

__version__ = "0.1.0"
