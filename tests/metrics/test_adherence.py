"""APA on embeddings whose dependence between vocal and band is known."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafm_jax.common.errors import InputError
from hafm_jax.metrics.adherence import adherence, adherence_interval, mismatch
from hafm_jax.metrics.frechet import frechet_distance


def mixes(seed: int, share: float = 1.0, num_clips: int = 80, offset: float = 0.0) -> list[np.ndarray]:
    """Clips of 4 embeddings: numbers of the vocal beside the band's, which follow it in a `share` of the clips."""
    rng = np.random.default_rng(seed)
    vocal = rng.standard_normal((num_clips, 1, 3))
    follows = rng.random((num_clips, 1, 1)) < share
    band = np.where(follows, vocal, rng.standard_normal((num_clips, 1, 3)))
    both = np.concatenate([vocal, band], axis=2)
    return list(both + 0.3 * rng.standard_normal((num_clips, 4, 6)) + offset)


REFERENCE, MISMATCHED = mixes(0), mixes(0, share=0.0)


def test_the_published_formula():
    candidates = mixes(2, share=0.5)
    c, r, m = (np.concatenate(clips) for clips in (candidates, REFERENCE, MISMATCHED))
    expected = 0.5 + (frechet_distance(c, m) - frechet_distance(c, r)) / (2 * frechet_distance(r, m))
    assert 0.2 < expected < 0.8
    assert adherence(candidates, REFERENCE, MISMATCHED).score == pytest.approx(expected, rel=1e-9)


def test_one_for_the_reference_zero_for_the_mismatched_and_the_order_between():
    assert adherence(REFERENCE, REFERENCE, MISMATCHED).score == pytest.approx(1.0)
    assert adherence(MISMATCHED, REFERENCE, MISMATCHED).score == pytest.approx(0.0, abs=1e-9)
    scores = [adherence(mixes(5, share), REFERENCE, MISMATCHED).score for share in (0.0, 0.3, 0.6, 1.0)]
    assert np.all(np.diff(scores) > 0.1)
    assert scores[0] < 0.1 and scores[-1] > 0.9


def test_it_stays_within_zero_and_one():
    beyond = [2 * x for x in REFERENCE]
    assert 0 <= adherence(beyond, REFERENCE, MISMATCHED).score <= 1
    # the plain formula would be outside: bands further from the mismatched than the true ones are
    c, r, m = (np.concatenate(clips) for clips in (beyond, REFERENCE, MISMATCHED))
    assert frechet_distance(c, m) - frechet_distance(c, r) > frechet_distance(r, m)
    assert adherence(beyond, REFERENCE, MISMATCHED).score == 1.0


def test_sounds_of_another_kind_show_in_their_distances():
    found = adherence(mixes(5, share=0.0, offset=20.0), REFERENCE, MISMATCHED)  # nothing follows: it ought to score 0
    assert found.to_reference > 100 * found.between and found.to_mismatched > 100 * found.between
    usual = adherence(mixes(5), REFERENCE, MISMATCHED)
    assert usual.to_reference < found.between < usual.to_mismatched + usual.to_reference


def test_intervals_hold_the_truth():
    many = {share: mixes(99, share, num_clips=6000) for share in (1.0, 0.5, 0.0)}
    truth = adherence(many[0.5], many[1.0], many[0.0]).score
    held = []
    for seed in range(60):
        reference, mismatched = mixes(3 * seed, 1.0), mixes(3 * seed, 0.0)
        interval = adherence_interval(mixes(3 * seed + 1, 0.5), reference, mismatched, num_draws=60, seed=seed)
        held.append(interval.low <= truth <= interval.high)
        assert 0 <= interval.low <= interval.high <= 1
        assert interval.high - interval.low < 0.9
    assert np.mean(held) >= 0.83


def test_an_interval_depends_on_the_seed_alone():
    sets = mixes(2, 0.5), REFERENCE, MISMATCHED
    first = adherence_interval(*sets, num_draws=20, seed=1)
    assert first == adherence_interval(*sets, num_draws=20, seed=1) != adherence_interval(*sets, num_draws=20, seed=2)
    assert first.value == adherence(*sets).score


@given(st.lists(st.integers(1, 4), min_size=4, max_size=12), st.integers(0, 99), st.randoms(use_true_random=False))
def test_mismatched_clips_are_of_other_songs_and_each_is_taken_once(sizes, seed, random):
    songs = [f"song-{number}" for number, size in enumerate(sizes) for _ in range(size)]
    random.shuffle(songs)
    if 2 * max(collections.Counter(songs).values()) > len(songs):
        with pytest.raises(InputError, match="are of one song"):
            mismatch(songs, seed)
        return
    partners = mismatch(songs, seed)
    assert sorted(partners) == list(range(len(songs)))
    assert all(songs[i] != songs[j] for i, j in enumerate(partners))
    np.testing.assert_array_equal(partners, mismatch(songs, seed))


def test_bad_sets_are_named():
    with pytest.raises(InputError, match="the same set"):
        adherence(MISMATCHED, REFERENCE, REFERENCE)
    with pytest.raises(InputError, match="80 reference and 79 mismatched"):
        adherence_interval(REFERENCE, REFERENCE, MISMATCHED[1:])
    with pytest.raises(InputError, match="are of one song"):
        mismatch([])
