"""Our stream learner beside river's adaptive random forest: `python bench/streams.py [--rows 10000] [NAME ...]`

The classical streams of the literature, made by river: SEA, Agrawal, STAGGER, Sine and Mixed change abruptly between
their classification functions, Hyperplane and RandomRBFDrift turn slowly, LED and Waveform have many classes; Phishing,
Bananas and ImageSegments are data that ship with river. Each row is predicted before its label is seen. Prints progress,
and one JSON object as its last line.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

import polars as pl
from river import datasets
from river.datasets import synth

from trading_platform.learning.prequential import score_stream, stream_of

Rows = Iterable[tuple[dict[Any, Any], Any]]


def changing(make: Callable[[int, int], Any], functions: int, rows: int) -> Rows:
    """`rows` of a generator that goes from one classification function to the next in equal parts."""
    for function in range(functions):
        yield from make(function, 42 + function).take(rows // functions)


STREAMS: dict[str, Callable[[int], Rows]] = {
    "sea": lambda n: changing(lambda f, s: synth.SEA(variant=f, noise=0.1, seed=s), 4, n),
    "agrawal": lambda n: changing(lambda f, s: synth.Agrawal(classification_function=3 * f, seed=s, perturbation=0.05), 4, n),
    "stagger": lambda n: changing(lambda f, s: synth.STAGGER(classification_function=f, seed=s), 3, n),
    "sine": lambda n: changing(lambda f, s: synth.Sine(classification_function=f, seed=s), 4, n),
    "mixed": lambda n: changing(lambda f, s: synth.Mixed(classification_function=f % 2, seed=s), 3, n),
    "hyperplane": lambda n: synth.Hyperplane(
        seed=42, n_features=10, n_drift_features=5, mag_change=0.001, noise_percentage=0.05
    ).take(n),
    "rbf": lambda n: synth.RandomRBFDrift(
        seed_model=42, seed_sample=42, n_classes=2, n_features=10, n_centroids=20, change_speed=0.0005, n_drift_centroids=10
    ).take(n),
    "led": lambda n: synth.LEDDrift(seed=42, noise_percentage=0.1, irrelevant_features=True, n_drift_features=4).take(n),
    "waveform": lambda n: synth.Waveform(seed=42).take(n // 2),
    "phishing": lambda _: datasets.Phishing(),
    "bananas": lambda _: datasets.Bananas(),
    "imagesegments": lambda _: datasets.ImageSegments(),
}  # fmt: skip


def compare(name: str, rows: int) -> dict[str, Any]:
    frame = pl.DataFrame(
        [{**{str(key): value for key, value in x.items()}, "label": str(y)} for x, y in STREAMS[name](rows)]
    )
    scores, _ = score_stream(stream_of(frame, "label"))
    return {
        who: {"accuracy": score.accuracy, "log_loss": score.log_loss, "drifts": score.drift_count, "seconds": score.seconds}
        for who, score in scores.items()
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(STREAMS), metavar="NAME", help=f"of {', '.join(STREAMS)}")
    parser.add_argument("--rows", type=int, default=10_000, help="of the streams that are made up")
    given = parser.parse_args()
    if unknown := set(given.names) - set(STREAMS):
        parser.error(f"no stream {', '.join(sorted(unknown))}; expected one of {', '.join(STREAMS)}")
    found = {}
    for name in given.names:
        found[name] = compare(name, given.rows)
        ours, arf = found[name]["ours"], found[name]["arf"]
        print(
            f"{name}: accuracy {ours['accuracy']:.4f} (arf {arf['accuracy']:.4f}), log-loss {ours['log_loss']:.4f} "
            f"(arf {arf['log_loss']:.4f}), seconds {ours['seconds']:.1f} (arf {arf['seconds']:.1f})",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
