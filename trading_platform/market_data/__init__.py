"""Bars: read, checked, stored, repaired, streamed.

What belongs here: everything between a venue (or a file) and a clean bar in the lake. What does not: features and
anything learned. Read `bar.py`, then `lake.py` (where bars live), then `datasets.py` (how they get there) and `feed.py`
(how they leave it, one market time at a time).
"""
