"""One readable file for each paper: its equations, sizes, tasks and inference."""
