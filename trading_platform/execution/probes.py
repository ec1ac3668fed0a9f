"""When an order is asked for at its venue: while its outcome is open, and for a while after it has ended. Pure.

Kite shows some orders minutes late (its forum tells of 8 and of 90 seconds), and a fill may overtake a cancellation. So an
order of unknown outcome is asked for without end, at gaps that grow to a minute, and one that has ended still is for five.
"""

from itertools import accumulate

FIRST_PROBE_SECONDS = 1.0
GAPS_SECONDS: tuple[float, ...] = (FIRST_PROBE_SECONDS, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Between two questions for an order of unknown outcome; the last one without end."""
LATE_SECONDS: tuple[float, ...] = (2.0, 15.0, 60.0, 300.0)
"""How long after its end an order is asked for once more. After the last one the venue has had its say."""


def next_probe(waited: float) -> float:
    """Seconds until an order of unknown outcome is asked for again that was sent `waited` seconds ago.

    >>> [next_probe(each) for each in (0, 1, 3, 7, 15, 30, 60, 5000)]
    [1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 60.0]
    """
    return next((at - waited for at in accumulate(GAPS_SECONDS) if at > waited), GAPS_SECONDS[-1])


def next_late_question(ended: float) -> float | None:
    """Seconds until an order is asked for once more that ended `ended` seconds ago; None: never again.

    >>> [next_late_question(each) for each in (0, 2, 15, 60, 300)]
    [2.0, 13.0, 45.0, 240.0, None]
    """
    return next((at - ended for at in LATE_SECONDS if at > ended), None)
