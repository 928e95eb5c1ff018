"""How training runs: phases, one loop, pure data order, checkpoints, ranks, progress, records."""
