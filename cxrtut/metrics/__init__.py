"""Measures of what a method does; they take tensors, never data sets."""
