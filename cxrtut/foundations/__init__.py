"""The code of the chapters in `book/foundations`, named as there."""
