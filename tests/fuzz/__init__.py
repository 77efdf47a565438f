"""Properties that hold for whatever comes in: what is wrong is told by a documented error, and nothing is lost.

The examples are the same in each run. ``CARROT_FUZZ=long pytest --timeout=0 tests/fuzz`` takes a hundred times as many,
others each time.
"""
