"""Has the mean of a stream risen? A Shiryaev-Roberts detector that knows neither the mean before nor the one after.

For each of a few odds ratios it adds up, over every moment the change could have come at, how many times likelier the
stream since then is with the odds raised by that ratio (Shiryaev 1963, Roberts 1966). Without a change the sum grows by
one a sample on average, whatever the mean is, so the threshold is the least mean number of samples between false
alarms (Pollak 1987) where the mean is known; here it is estimated as the stream goes on, which measurements in
`drift_bench.py` show to cost nothing at this threshold. Mixing alternatives and restarting from every moment makes it
an e-detector (Shin, Ramdas & Rinaldo, "E-detectors", 2022).
"""

import math

ODDS_RATIOS = (1.5, 2.0, 3.0)
"""Alternatives: a rate of .20 that becomes .27, .33 or .43."""
SAMPLES_BETWEEN_FALSE_ALARMS = 40_000.0
FIRST_LOOK = 30
"""Samples the mean before is estimated from, at the least."""
CAUTION = 0.5
"""Standard errors added to the estimated mean: most false alarms come from a mean estimated too low."""
LEAST_RATE, LARGEST_RATE = 0.01, 0.99
MOST_TRIALS = 50.0


class ShiryaevRoberts:
    """Values in [0, 1] one at a time (`update`), then `drift_detected`: river's two verbs. An alarm starts afresh.

    Values may be errors (0 or 1) or means of several: a mean of m independent errors counts as m trials, where m is
    read off the variance (p * (1 - p) / variance, the dispersion of quasi-likelihood), so a steadier stream is
    judged the more sharply, and one of labels that move together the less.
    """

    _sums: list[float]

    def __init__(self, threshold: float = SAMPLES_BETWEEN_FALSE_ALARMS) -> None:
        if not threshold > 1.0:
            raise ValueError(f"the threshold is a number of samples between false alarms, above 1; got {threshold!r}")
        self.threshold = threshold
        self.drift_detected = False
        self.statistic = 0.0
        """The mean of the sums over the alternatives; an alarm is raised beyond `threshold`."""
        self._forget()

    def update(self, value: float) -> None:
        """Take the next value. Raises ValueError where it is not in [0, 1]."""
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"a value of an error stream lies in [0, 1], got {value!r}: scale the stream first")
        self.drift_detected = False
        self.statistic = self._raised(value) if self._count >= FIRST_LOOK else 0.0
        if self.statistic > self.threshold:
            self.drift_detected = True
            self._forget()
            return
        self._count += 1
        self._sum += value
        self._squares += value * value

    def _raised(self, value: float) -> float:
        mean = self._sum / self._count
        rate = min(max(mean, LEAST_RATE), LARGEST_RATE)
        spread = rate * (1.0 - rate)
        trials = min(spread / max(self._squares / self._count - mean * mean, 1e-9), MOST_TRIALS)
        rate = min(rate + CAUTION * math.sqrt(spread / (trials * self._count)), LARGEST_RATE)
        self._sums = [
            (1.0 + grown) * math.pow(math.pow(odds, value) / (1.0 + (odds - 1.0) * rate), trials)
            for grown, odds in zip(self._sums, ODDS_RATIOS, strict=True)
        ]
        return sum(self._sums) / len(self._sums)

    def _forget(self) -> None:
        self._count, self._sum, self._squares = 0, 0.0, 0.0
        self._sums = [0.0] * len(ODDS_RATIOS)
