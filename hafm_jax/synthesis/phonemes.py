"""Morae, the syllables that recorded voices have, and the nearest ones to the words of a song.

A mora is a consonant, which may be "", and a vowel, as romaji spells them: ("sh", "i"), ("", "a"); ("", "n") is the
nasal that is sung alone. Spelling is read by rule and not by dictionary: a listener should recognise the words' rhythm
and colour, no more.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

Mora = tuple[str, str]
VOWELS = "aiueo"
NASAL: Mora = ("", "n")

_ROWS = {  # a row of the kana table: its consonant, and its kana for a, i, u, e, o
    "": "あいうえお",
    "k": "かきくけこ",
    "g": "がぎぐげご",
    "s": "さしすせそ",
    "z": "ざじずぜぞ",
    "t": "たちつてと",
    "d": "だぢづでど",
    "n": "なにぬねの",
    "h": "はひふへほ",
    "b": "ばびぶべぼ",
    "p": "ぱぴぷぺぽ",
    "m": "まみむめも",
    "y": "や ゆ よ",
    "r": "らりるれろ",
    "w": "わゐ ゑを",
    "v": "  ゔ  ",
}
_HEPBURN = {"si": "sh", "zi": "j", "ti": "ch", "di": "j", "tu": "ts", "du": "z", "hu": "f"}
_KANA = {
    kana: (_HEPBURN.get(consonant + vowel, consonant), vowel)
    for consonant, row in _ROWS.items()
    for kana, vowel in zip(row, VOWELS, strict=True)
    if kana != " "
} | {"ん": NASAL}
_SMALL_VOWELS = dict(zip("ぁぃぅぇぉ", VOWELS, strict=True))
_SMALL_Y = dict(zip("ゃゅょ", "auo", strict=True))
_BEFORE_SMALL_VOWEL = {"い": "y", "う": "w", "く": "kw", "ぐ": "gw", "す": "s", "ず": "z", "て": "t", "で": "d"}
_BEFORE_SMALL_VOWEL |= {"と": "t", "ど": "d", "ふ": "f", "つ": "ts", "ゔ": "v", "し": "sh", "ち": "ch", "じ": "j"}

# Consonants by how near they sound, the consonant itself first; after them, the vowel alone. Ours.
_NEAREST = {
    "b": "b v p", "ch": "ch t sh", "d": "d dz j z", "dz": "dz z j", "f": "f h", "g": "g k", "h": "h f", "j": "j z",
    "k": "k g", "l": "r", "m": "m n", "n": "n m", "p": "p b", "r": "r", "s": "s sh", "sh": "sh s", "t": "t ch ts",
    "ts": "ts s", "v": "v b", "w": "w", "y": "y", "z": "z dz j", "ny": "ny n", "ry": "ry r", "kw": "kw k",
    "gw": "gw g",
}  # fmt: skip
# What letters sound like, longest first; languages of lead sheets (English, French, German, Italian) are taken
# together, so each is an approximation. Ours.
_ONSETS = {
    "sch": "sh", "tsch": "ch", "sh": "sh", "ch": "ch", "th": "z", "ph": "f", "wh": "w", "qu": "kw", "gn": "ny",
    "gli": "ry", "kn": "n", "wr": "r", "tz": "ts", "ck": "k", "gu": "g", "x": "z", "q": "k", "c": "k", "ll": "y",
}  # fmt: skip
_NUCLEI = {
    "igh": "a", "eau": "o", "ough": "o", "augh": "o", "ee": "i", "ea": "i", "ie": "i", "ey": "e", "ay": "e", "ai": "e",
    "ei": "a", "oo": "u", "ou": "u", "ow": "o", "oa": "o", "oe": "u", "au": "o", "aw": "o", "ew": "u", "ue": "u",
    "ui": "i", "oi": "o", "oy": "o", "eu": "u", "ir": "a", "er": "a", "ur": "a", "y": "i",
}  # fmt: skip


def mora_of(alias: str) -> Mora | None:
    """The mora that a bank's alias names in kana or romaji; None where it names none, as breaths do."""
    kana = "".join(chr(ord(c) - 0x60) if "ァ" <= c <= "ヴ" else c for c in alias)
    if kana in _KANA:
        return _KANA[kana]
    if len(kana) == 2 and kana[0] in _KANA:
        consonant = _KANA[kana[0]][0]
        if kana[1] in _SMALL_Y:
            hushed = consonant in ("sh", "ch", "j")
            return consonant + ("" if hushed else "y"), _SMALL_Y[kana[1]]
        if kana[1] in _SMALL_VOWELS:
            return _BEFORE_SMALL_VOWEL.get(kana[0], consonant + "y"), _SMALL_VOWELS[kana[1]]
    if alias == "n":
        return NASAL
    known = re.fullmatch(r"(|[bghkmnpr]y?|[sc]h|ts|dz|[kgh]w|[dft]y|[dfjlstvwyz])([aiueo])", alias)
    return (known.group(1), known.group(2)) if known else None


def _sounds(syllable: str) -> Mora | None:
    """Consonant and vowel of a syllable of a text; None where it holds no letters that can be read."""
    text = unicodedata.normalize("NFKC", syllable.strip().lower())
    if (mora := mora_of(text)) is not None:
        return mora
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    letters = re.sub(r"[^a-z]", "", plain)
    # An initial y before a vowel is a consonant; "u" after "q" or between g and e, i belongs to its consonant.
    match = re.match(r"(qu|gu(?=[ei])|gli(?=[aeou])|y(?=[aeiou])|[bcdfghjklmnpqrstvwxz]+)?([aeiouy].*)?", letters)
    onset, rest = (match.group(1) or "", match.group(2) or "") if match else ("", "")
    if not onset and not rest:
        return None
    if not rest:  # "m", "n'", "l'": hummed, or with the vowel that lips make by themselves
        return NASAL if onset[-1] in "mn" else (_consonant(onset, ""), "u")
    nuclei = (_NUCLEI[rest[:n]] for n in (4, 3, 2, 1) if rest[:n] in _NUCLEI and not re.match(r".r[aeiouy]", rest))
    return _consonant(onset, rest), next(nuclei, rest[0])


def _consonant(onset: str, rest: str) -> str:
    if onset in ("c", "sc") and rest[:1] in ("e", "i", "y") and rest:
        return "s"
    if onset == "g" and rest[:2] == "io":
        return "j"
    for n in (4, 3, 2):
        if onset[:n] in _ONSETS and len(onset) >= n:
            return _ONSETS[onset[:n]]
    # Of a cluster such as "st" or "str", what follows the s; of others ("tr", "bl"), the first.
    core = onset[1:] if len(onset) > 1 and onset[0] == "s" else onset
    return _ONSETS.get(core[:1], core[:1])


def nearest_mora(syllable: str, morae: Collection[Mora]) -> Mora | None:
    """Of a bank's morae, the one nearest to a syllable of the words: its vowel first, then its consonant.

    None where the syllable holds nothing to sing, or the bank has not even the vowel.
    """
    sounds = _sounds(syllable)
    if sounds is None:
        return None
    consonant, vowel = sounds
    chain = [*_NEAREST.get(consonant, f"{consonant} {consonant[:1]}").split(" "), ""]
    return next(((near, vowel) for near in chain if (near, vowel) in morae), None)
