"""Learning: labels, validation, training, calibration, certification, registry, drift, experiments.

A model's number is called a confidence only where out-of-sample data say how often it comes true. The numeric files
work on plain arrays and know nothing of markets; `training.py`, `registry.py`, `drift.py` and `experiments.py` put
them to work on the lake and the control database.

Read `labels.py` first (what is being predicted), then `plan.py` and `training.py` (how a version comes to be), then
`servable.py` (what the live path sees of it).
"""
