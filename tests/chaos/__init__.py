"""Chaos: a producer at full speed, readers that never stop, processes that die; all is proven."""
