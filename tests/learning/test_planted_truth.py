"""Certification on markets whose truth is known. The 200 walks are `bench/planted_truth.py`; here a few of each kind."""

from pathlib import Path

import numpy as np
import pytest

from trading_platform.learning.certification import Certification, certify
from trading_platform.learning.evaluation import Question, WalkedForward, choose_and_walk
from trading_platform.learning.evaluation_bars import plan_of
from trading_platform.learning.labels import BarrierSpec
from trading_platform.learning.samples import build_samples
from trading_platform.learning.search import study_file
from trading_platform.market_data.planted import EVERY, LASTS, bursts, random_walk

EMBARGO = 12 * 3_600_000_000


def walked(bars, barriers: BarrierSpec, folder: Path, trials: int = 2) -> WalkedForward:
    samples = build_samples(bars, plan_of(barriers, 0.1), bars["available_at"].max(), EMBARGO)
    question = Question("planted", "lightgbm", trials, 3, 0.1, EMBARGO, 7)
    return choose_and_walk(samples, question, study_file(folder / "study.log"), lambda *_: None)


def certified(found: WalkedForward) -> Certification:
    return certify(found.rows.resolved(np.ones(len(found.rows.label), dtype=np.bool_)))


@pytest.mark.parametrize(("profit", "stop"), [(1.0, 1.0), (0.05, 2.0)])
def test_a_random_walk_is_not_certified_not_even_where_a_coin_is_right_80_percent(
    tmp_path: Path, profit: float, stop: float
) -> None:
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        found = walked(random_walk(2_500, seed), BarrierSpec(profit, stop, 12, 0.0), folder)
        assert not certified(found).certified
    if stop == 2.0:  # the trap is real: entering blindly comes true this often
        assert found.rows.label.mean() > 0.78


def test_a_signal_of_80_percent_is_certified_where_it_exists(tmp_path: Path) -> None:
    bars, loud = bursts(20_000, 3, strength=0.6)
    found = walked(bars, BarrierSpec(1.0, 1.0, 12, 0.0), tmp_path, trials=4)
    certification = certified(found)
    assert certification.certified
    chosen = found.rows.confidence >= certification.threshold
    assert found.rows.label[chosen].mean() >= 0.8
    # and what it chose are mostly bars of a drift, which are LASTS in EVERY of all bars
    moments = bars["available_at"].dt.timestamp("us").to_numpy()
    after = np.convolve(loud, np.ones(LASTS))[: len(loud)] > 0
    told = dict(zip(moments.tolist(), after.tolist(), strict=True))
    assert np.mean([told[start] for start in found.rows.start[chosen].tolist()]) > 2 * LASTS / EVERY


def test_bursts_are_as_far_apart_as_they_are_said_to_be() -> None:
    bars, loud = bursts(100_000, 5, 0.5)
    at = np.flatnonzero(loud)
    assert np.diff(at).min() >= LASTS
    assert np.diff(at).mean() == pytest.approx(EVERY, rel=0.03)
    change = np.diff(np.log(bars["close"].to_numpy()), prepend=np.log(100.0)) / 0.01
    after = np.concatenate([change[burst + 1 : burst + 1 + LASTS] for burst in at])
    assert after.mean() == pytest.approx(0.5, abs=0.03)
    assert bars.filter(bars["high"] < bars["low"]).is_empty()
