"""What the writer of a page can mend."""


class BookError(Exception):
    """Something the writer of a page can mend; shown without a traceback."""
