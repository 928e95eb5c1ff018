"""Losses that have a literature of their own; every one of them is minimised."""
