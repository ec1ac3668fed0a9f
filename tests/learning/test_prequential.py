"""`learn prequential`: river's streams and forest as the measure; nothing is known before its time."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from river import datasets, metrics
from river.datasets import synth
from typer.testing import CliRunner

from trading_platform.learning.learn_commands import learn
from trading_platform.learning.prequential import UnreadableStreamError, rolling, score_stream, stream_of
from trading_platform.learning.stream_learner import EXPERTS, FIRST_FIT, change_point, learn_stream


def frame(stream, rows: int | None = None) -> pl.DataFrame:
    return pl.DataFrame([{**{str(k): v for k, v in x.items()}, "y": y} for x, y in islice(stream, rows)])


def changing(rows: int = 2_000) -> pl.DataFrame:
    """Agrawal's loans, decided by another rule from the middle on."""
    before, after = (synth.Agrawal(classification_function=rule, seed=rule + 1) for rule in (0, 4))
    return frame(synth.ConceptDriftStream(before, after, position=rows // 2, width=20, seed=1), rows)


def test_a_planted_change_is_found_and_learnt() -> None:
    stream = stream_of(changing(), "y")
    scores, weights = score_stream(stream, with_arf=False)
    ours = scores["ours"]
    assert len(ours.drifts) == 1
    assert 1_000 <= ours.drifts[0] <= 1_100
    assert ours.right[700:1_000].mean() > 0.9
    assert ours.right[1_600:].mean() > 0.9
    assert ours.accuracy > scores["base_rate"].accuracy + 0.2
    since = EXPERTS.index("trees, since the last drift")
    assert weights[1_600:, since].mean() > weights[1_600:, EXPERTS.index("trees, all rows")].mean()


@pytest.mark.timeout(170)
def test_no_worse_than_the_adaptive_random_forest_on_rivers_own_data() -> None:
    stream = stream_of(frame(datasets.Phishing(), 800), "y")
    scores, _ = score_stream(stream)
    assert scores["ours"].log_loss < scores["arf"].log_loss
    assert scores["ours"].accuracy > scores["arf"].accuracy - 0.02
    images = stream_of(frame(datasets.ImageSegments(), 500), "y")
    assert len(images.classes) == 7
    scores, _ = score_stream(images)
    assert scores["ours"].accuracy > scores["arf"].accuracy
    assert scores["ours"].log_loss < scores["arf"].log_loss


@pytest.mark.parametrize("generator", [synth.STAGGER, synth.Sine])
def test_no_worse_than_the_adaptive_random_forest_where_the_rule_changes_at_once(generator) -> None:
    parts = [frame(generator(classification_function=rule, seed=rule), 700) for rule in (0, 1, 2)]
    scores, _ = score_stream(stream_of(pl.concat(parts), "y"))
    assert scores["ours"].accuracy >= scores["arf"].accuracy
    assert scores["ours"].log_loss < scores["arf"].log_loss


def test_noise_is_not_learnt() -> None:
    rng = np.random.default_rng(1)
    data = pl.DataFrame({"a": rng.normal(size=2_000), "y": rng.random(2_000) < 0.5})
    scores, _ = score_stream(stream_of(data, "y"), with_arf=False)
    assert scores["ours"].log_loss < np.log(2) + 0.03
    assert scores["ours"].accuracy < 0.54


def test_no_row_knows_its_own_label_or_what_comes_after() -> None:
    """What was said of the first rows stays the same, whatever the labels and features after them are."""
    rng = np.random.default_rng(2)
    matrix, label = rng.normal(size=(700, 3)), rng.integers(0, 2, 700)
    cut = 333
    other, relabelled = matrix.copy(), label.copy()
    other[cut + 1 :], relabelled[cut:] = 9.0, 1 - label[cut:]
    said = learn_stream(matrix, label, 2).probability
    assert np.array_equal(said[: cut + 1], learn_stream(other, relabelled, 2).probability[: cut + 1])
    assert not np.array_equal(said[cut + 1 :], learn_stream(other, relabelled, 2).probability[cut + 1 :])


def test_the_figures_are_rivers() -> None:
    rng = np.random.default_rng(3)
    data = pl.DataFrame({"a": rng.normal(size=400), "y": np.cumsum(rng.random(400) < 0.1) % 3})
    stream = stream_of(data, "y")
    scores, _ = score_stream(stream, with_arf=False)
    accuracy, log_loss = metrics.Accuracy(), metrics.CrossEntropy()
    said = learn_stream(stream.matrix, stream.label, 3).probability
    for row, truth in enumerate(stream.label.tolist()):
        accuracy.update(truth, int(said[row].argmax()))
        log_loss.update(truth, dict(enumerate(said[row].tolist())))
    ours, stale = scores["ours"], scores["no_change"]
    assert ours.accuracy == pytest.approx(accuracy.get())
    assert ours.log_loss == pytest.approx(log_loss.get(), abs=1e-6)
    assert stale.kappa_temporal == pytest.approx(0.0, abs=0.026), "the first row, which has no last label, may be right"
    assert stale.accuracy == pytest.approx(np.mean(stream.label[1:] == stream.label[:-1]), abs=0.01)
    assert ours.kappa_temporal == pytest.approx((ours.accuracy - stale.accuracy) / (1 - stale.accuracy), abs=0.03)


def test_probabilities_are_probabilities_before_and_after_the_first_fit() -> None:
    rng = np.random.default_rng(4)
    for rows in (1, FIRST_FIT, FIRST_FIT + 1, 120):
        said = learn_stream(rng.normal(size=(rows, 2)), rng.integers(0, 4, rows), 4).probability
        assert said.shape == (rows, 4)
        assert said.sum(axis=1) == pytest.approx(1.0)
        assert said.min() > 0


@pytest.mark.parametrize("at", [100, 250, 400])
def test_the_change_point_is_where_errors_rose(at: int) -> None:
    wrong = np.zeros(500, dtype=bool)
    wrong[:at:10] = True
    wrong[at::2] = True
    assert change_point(wrong) == pytest.approx(at, abs=10)
    assert change_point(wrong[:15]) == 0


def test_the_rolling_accuracy_is_of_the_rows_before() -> None:
    right = np.arange(3_000) >= 1_500
    rows, accuracy = rolling(right)
    assert accuracy[rows < 1_500].max() == 0.0
    assert accuracy[rows >= 1_600].min() == 1.0


def test_the_command_reads_csv_and_parquet_and_answers_in_json(tmp_path: Path) -> None:
    data = changing(400).with_columns(at=pl.int_range(pl.len()), word=pl.lit("x"), gap=pl.lit(None, dtype=pl.Float64))
    data.sample(fraction=1.0, shuffle=True, seed=1).write_csv(tmp_path / "s.csv")
    data.write_parquet(tmp_path / "s.parquet")
    results = []
    for arguments in (["s.csv", "--time", "at"], ["s.parquet", "--time", "at", "--no-arf"]):
        shown = CliRunner().invoke(
            learn,
            ["prequential", "--data", str(tmp_path / arguments[0]), "--label", "y", *arguments[1:],
             "--plot", str(tmp_path / "s.png")],
        )  # fmt: skip
        assert shown.exit_code == 0, shown.output
        results.append(json.loads(shown.stdout.splitlines()[-1]))
        assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    for name in ("ours", "no_change", "base_rate", "arf"):
        assert set(results[0][name]) >= {"accuracy", "kappa_temporal", "log_loss", "drifts", "updates", "seconds"}
    assert results[1]["arf"] is None
    assert results[0]["ours"]["log_loss"] == results[1]["ours"]["log_loss"], "sorted by time, whatever the file's order"


@pytest.mark.parametrize(
    ("data", "label", "message"),
    [
        ({"a": [1, 2]}, "y", "no column 'y'"),
        ({"y": [1, None]}, "y", "1 of 2 rows have no 'y'"),
        ({"y": [1.0, float("nan"), 0.0]}, "y", "1 of 3 rows have no 'y'"),
        ({"y": [1, 1]}, "y", "1 different values"),
        ({"y": list(range(101))}, "y", "101 different values"),
    ],
)
def test_what_is_no_stream_is_refused_with_a_reason(data, label: str, message: str) -> None:
    with pytest.raises(UnreadableStreamError, match=message):
        stream_of(pl.DataFrame(data), label)
    assert stream_of(pl.DataFrame({"y": list(range(100))}), "y").matrix.shape == (100, 0)


def test_rows_without_a_time_are_refused() -> None:
    with pytest.raises(UnreadableStreamError, match="1 of 2 rows have no 'at'"):
        stream_of(pl.DataFrame({"y": [1, 0], "at": [1, None]}), "y", "at")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.csv", None, "there is no file"),
        ("empty.csv", b"", "cannot be read"),
        ("junk.parquet", b"junk", "cannot be read"),
        ("", None, "there is no file"),
    ],
)
def test_what_is_no_file_of_rows_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    shown = CliRunner().invoke(learn, ["prequential", "--data", str(tmp_path / name), "--label", "y"])
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert message in " ".join(shown.stderr.split())


def test_the_plot_is_drawn_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    changing(100).write_csv("s.csv")
    shown = CliRunner().invoke(learn, ["prequential", "--data", "s.csv", "--label", "y", "--no-arf"])
    assert json.loads(shown.stdout.splitlines()[-1])["plot"] == "s-prequential.png"
    assert Path("s-prequential.png").read_bytes().startswith(b"\x89PNG")
