"""A token endpoint to rehearse against: NET2GRID's CE-API with switches for everything that its documents leave open.

It keeps its own books and knows nothing of the rest of rotator: tests and the demo take its word as the verdict.
"""
