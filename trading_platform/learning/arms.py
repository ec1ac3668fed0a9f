"""Whose signal a user's money follows: a sticky hash, so that a user never changes sides within an experiment.

A module of its own, because engines need this and nothing else of experiments.
"""

import hashlib

from trading_platform.identifiers import ExperimentId, UserId

CHAMPION, CHALLENGER = "champion", "challenger"
BUCKETS = 10_000


def arm_of(experiment_id: ExperimentId | str, user_id: UserId | str, split_basis_points: int) -> str:
    """`challenger` for that share (in 1/10,000) of users, for good; everybody else follows the champion."""
    digest = hashlib.sha256(f"{experiment_id}:{user_id}".encode()).hexdigest()
    return CHALLENGER if int(digest, 16) % BUCKETS < split_basis_points else CHAMPION
