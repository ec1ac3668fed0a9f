"""Jobs and schedules: which assets run together, and when. `one_pass.py` runs the whole loop once, with progress."""
