"""Morae of aliases, and those nearest to words, against tables written by hand."""

from __future__ import annotations

import pytest

from hafm_jax.synthesis.phonemes import mora_of, nearest_mora

ALIASES = {
    "あ": ("", "a"), "か": ("k", "a"), "し": ("sh", "i"), "つ": ("ts", "u"), "ふ": ("f", "u"), "ん": ("", "n"),
    "きゃ": ("ky", "a"), "しょ": ("sh", "o"), "ふぁ": ("f", "a"), "うぃ": ("w", "i"), "いぇ": ("y", "e"),
    "てぃ": ("t", "i"), "ヴぁ": ("v", "a"), "カ": ("k", "a"), "shi": ("sh", "i"), "kya": ("ky", "a"), "n": ("", "n"),
    "breath": None, "brlo1囁": None, "R": None, "息": None,
}  # fmt: skip
JAPANESE = {("", v) for v in "aiueo"} | {(c, v) for c in ("k", "r", "m", "b") for v in "aiueo"}
JAPANESE |= {
    ("s", "a"),
    ("s", "o"),
    ("sh", "i"),
    ("t", "a"),
    ("ch", "i"),
    ("n", "a"),
    ("h", "a"),
    ("f", "u"),
    ("", "n"),
}
WORDS = {
    "Twin-": ("ch", "i"), "star": ("t", "a"), "la": ("r", "a"), "see": ("sh", "i"), "very": ("b", "e"),
    "moon": ("m", "u"), "be": ("b", "e"), "früh": ("f", "u"), "bel-": ("b", "e"), "l'a": ("r", "a"), "mm": ("", "n"),
    "qui": ("k", "i"), "Oh,": ("", "o"), "かー": None, "か": ("k", "a"), "1.": None, "": None, "-": None,
    "ha!": ("h", "a"),
}  # fmt: skip


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases(alias):
    assert mora_of(alias) == ALIASES[alias]


@pytest.mark.parametrize("word", WORDS)
def test_words(word):
    assert nearest_mora(word, JAPANESE) == WORDS[word]
