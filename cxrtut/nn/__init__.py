"""Networks and blocks that have a literature of their own."""
