"""The arms and metrics behind the tables: what trains what, on which data, and what is measured."""
