"""How fast the series is, as ratios of two ways in one run; and studies of single choices.

`python -m benchmarks` runs the benchmarks in `registry`. `comparison` measures, tabulates and
writes, `images` makes the pictures, `figures` draws. README.md gives the question of each one.
"""
