"""How fast the series is, as ratios of two ways in one run; and studies of single choices.

`python -m benchmarks` runs what `registry` lists. `comparison` measures, tabulates and writes,
`images` makes the pictures, `figures` draws. README.md says what each benchmark asks.
"""
