"""`hafm_jax.load()` and what it returns, as a caller uses them."""

from __future__ import annotations

import json

import mutagen
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

import hafm_jax
from hafm_jax import Accompanist, Band, InputError, Sampling, SamplingOptions
from hafm_jax.audio.loudness import loudness_lufs
from hafm_jax.audio.reading import read_sound
from hafm_jax.audio.vocals import Vocal, vocal_of
from hafm_jax.band import settings_of

FAST = SamplingOptions(sampling=Sampling(guidance_scale=1.0), skip_fine=True)
FACTS = {"seed": 3, "take": 1, "versions": {"hafm_jax": "0"}, "model": {"source": "demo", "sha256": "ab"}}
SETTINGS = FACTS | {"vocal": {}, "sampling": {}, "skip_fine": True, "rate_in_tune_hz": 44_100}


@pytest.fixture(scope="module")
def model(tiny_model) -> Accompanist:
    return Accompanist.load(tiny_model)


def voice(seconds: float = 0.5, rate_hz: int = 24_000) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 220 * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


@pytest.fixture
def band() -> Band:
    """Of a stereo take at 44.1 kHz with sound up to 20 kHz."""
    rng = np.random.default_rng(0)  # its own: the tests' order must not matter
    take = rng.normal(0, 0.05, (2, 2 * 44_100)).astype(np.float32)
    return Band(rng.normal(0, 0.1, 48_000).astype(np.float32), {}, Vocal(take, 44_100, "a take.wav"), SETTINGS)


# ------------------------------------------------------------------------------------------------------------- calls


def test_a_path_an_array_and_its_transpose_give_one_band(model, tmp_path):
    stereo = np.stack([voice(), 0.5 * voice()])
    soundfile.write(tmp_path / "take.wav", stereo.T, 24_000, subtype="FLOAT")
    given = [tmp_path / "take.wav", str(tmp_path / "take.wav"), (stereo, 24_000), (stereo.T, 24_000)]
    given.append(((stereo * 2**15).round().astype(np.int16) / np.float32(2**15), np.int64(24_000)))  # as a list of ints
    bands = [model(vocal, FAST, seed=1) for vocal in given]
    for other in bands[1:4]:
        np.testing.assert_array_equal(other.instrumental, bands[0].instrumental)
        assert other.settings["vocal"]["sha256"] == bands[0].settings["vocal"]["sha256"]
    first = bands[0]
    assert first.sample_rate_hz == 24_000 and first.seed == 1 and first.instrumental.shape == (12_000,)
    assert {name: tokens.shape[1] for name, tokens in first.tokens.items()} == {"instrumental_semantic": 1, "coarse": 4}
    assert json.loads(json.dumps(first.settings)) == first.settings


def test_a_take_depends_neither_on_their_number_nor_on_other_vocals(model):
    given = (voice(), 24_000)
    one, two = model.takes(given, 1, FAST, seed=5), model.takes(given, 2, FAST, seed=5)
    each = model.takes_of_each([given, (voice(0.3), 24_000), given], 1, FAST, seeds=[4, 4, 5])
    for same in (two[0], each[2][0]):
        np.testing.assert_array_equal(same.instrumental, one[0].instrumental)
        assert same.settings == one[0].settings
    assert (two[0].tokens["coarse"] != two[1].tokens["coarse"]).any()
    assert (each[0][0].tokens["coarse"] != one[0].tokens["coarse"]).any()
    assert each[1][0].instrumental.shape == (7_200,)


@pytest.mark.parametrize("where", ["compile", "coarse"])
def test_a_callback_that_raises_ends_the_work_and_the_model_lives_on(tiny_model, where):
    class Cancelled(Exception):
        pass

    def progress(stage, done, total):
        if stage == where:
            raise Cancelled

    fresh = Accompanist.load(tiny_model)
    with pytest.raises(Cancelled):
        fresh((voice(), 24_000), FAST, seed=1, progress=progress)
    after, other = (m((voice(), 24_000), FAST, seed=1) for m in (fresh, Accompanist.load(tiny_model)))
    np.testing.assert_array_equal(after.instrumental, other.instrumental)


def test_integers_are_scaled_to_floats():
    for dtype in (np.int8, np.int16, np.int32, np.uint8):
        limits, silence = np.iinfo(dtype), 128 if dtype is np.uint8 else 0
        array = np.resize(np.array([limits.min, silence], dtype), 2_000)
        np.testing.assert_array_equal(vocal_of((array, 24_000)).audio[0, :2], [-1, 0])


MALFORMED = st.one_of(
    st.none(),
    st.integers(-3, 3),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
DTYPES = ["f2", "f4", "f8", "i2", "i8", "u4", "c8", "?", "U1", "O", "M8[s]"]
SHAPES = st.lists(st.integers(0, 30), max_size=3)
ARRAYS = st.one_of(
    st.builds(lambda shape, dtype: np.zeros(shape, dtype), SHAPES, st.sampled_from(DTYPES)),
    st.sampled_from([np.full(2_000, np.nan), np.full(2_000, 1e300), [[1.0], [1.0, 2.0]], "abc", [voice(), voice(0.4)]]),
)
GOOD = (voice(), 24_000)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_malformed_call_raises_input_error_and_nothing_else(model, data):
    rates = st.one_of(MALFORMED, st.just(24_000), st.just(44_100.0), st.just(True), st.just(2**70))
    cases = {
        "vocal": st.one_of(MALFORMED, st.tuples(ARRAYS, rates), st.tuples(MALFORMED, rates)),
        "options": MALFORMED,
        "seed": MALFORMED.filter(lambda x: type(x) is not int or x < 0) | st.just(2**31),
        "rate_in_tune_hz": MALFORMED.filter(lambda x: x is not None),
        "progress": MALFORMED.filter(lambda x: x is not None),
        "sampling": st.one_of(
            MALFORMED.filter(lambda x: x is not None and x != {}),
            st.dictionaries(st.sampled_from(["semantic", "fine", "x", 3]), MALFORMED, min_size=1, max_size=2),
        ),
    }
    name = data.draw(st.sampled_from(sorted(cases)))
    value = data.draw(cases[name])
    with pytest.raises(InputError) as raised:
        if name == "vocal":
            model(value, FAST)
        elif name == "options":
            model(GOOD, value)
        elif name == "sampling":
            model(GOOD, SamplingOptions(sampling=value))
        else:
            model(GOOD, FAST, **{name: value})
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("source", [None, 3, "", "no/such/model", "owner/name@", "\0", "x" * 5_000, b"demo"])
def test_what_is_not_a_model_is_refused(source):
    with pytest.raises(InputError):
        Accompanist.load(source)


def test_the_names_are_there_for_people_and_type_checkers():
    assert set(hafm_jax.__all__) <= set(dir(hafm_jax))
    for name in hafm_jax.__all__:
        assert getattr(hafm_jax, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hafm_jax.nothing


# ------------------------------------------------------------------------------------------------------ mix and files


def test_the_mix_keeps_the_voice_as_it_came(band, tmp_path):
    """Up to a gain, above the band's 12 kHz too."""
    band.save(tmp_path / "mix.wav", bits=32)
    mix, rate_hz = soundfile.read(tmp_path / "mix.wav")
    stem, _ = soundfile.read(tmp_path / "mix_instrumental.wav")
    take = band.vocal.audio.T.astype(np.float64)
    found = mix - stem
    gain = np.vdot(found, take) / np.vdot(take, take)
    assert rate_hz == 44_100 and found.shape == take.shape
    assert np.abs(found / gain - take).max() < 1e-4 * np.abs(take).max()
    high = np.abs(np.fft.rfft(stem[:, 0]))
    assert (
        high[np.fft.rfftfreq(len(stem), 1 / 44_100) > 12_500].max() < 1e-2 * high.max()
    )  # the take's own is not there
    np.testing.assert_array_equal(stem[:, 0], stem[:, 1])
    assert band.mix(rate_hz=24_000).audio.shape == (2, 48_000)


def test_balance_and_loudness_are_as_asked_and_the_peak_limits_them(band):
    voices = {}
    for balance_lu in (-6, 0, 8.5):
        mixed = band.mix(balance_lu=balance_lu)
        voices = mixed.vocal_gain * band.vocal.audio
        found = loudness_lufs(voices, 44_100) - loudness_lufs(mixed.instrumental, 44_100)
        assert found == pytest.approx(balance_lu, abs=0.1)
    quiet, loud = band.mix(loudness_lufs=-30), band.mix(loudness_lufs=-1)
    assert loudness_lufs(quiet.audio, 44_100) == pytest.approx(-30, abs=0.01) and quiet.limited_lufs is None
    assert loudness_lufs(loud.audio, 44_100) == pytest.approx(loud.limited_lufs, abs=0.01) and loud.limited_lufs < -1
    assert 20 * np.log10(np.abs(loud.audio).max()) == pytest.approx(-1, abs=0.01)
    for bad in ({"balance_lu": None}, {"balance_lu": "2"}, {"loudness_lufs": 3}, {"rate_hz": 44_100.5}, {"rate_hz": 1}):
        with pytest.raises(InputError):
            band.mix(**bad)


FILES = {"a.wav": 24, "a.flac": 24, "b.FLAC": 16, "a.ogg": 16, "a.opus": 16, "a.mp3": 16}  # name -> bits


@pytest.mark.parametrize("name", FILES)
def test_every_format_holds_the_sound_and_how_it_was_made(band, tmp_path, name):
    path, bits, rate_hz = tmp_path / name, FILES[name], 48_000 if name == "a.opus" else 44_100
    mixed = band.save(path, bits=bits)
    sound, first = read_sound(path), path.read_bytes()
    assert sound.sample_rate_hz == rate_hz and sound.audio.shape[1] == 2 * rate_hz
    low = band.mix(rate_hz=8_000).audio[0, :15_000]
    heard = hafm_jax.audio.files.resample(sound.audio, rate_hz, 8_000)[0, :15_000]
    assert np.corrcoef(low, heard)[0, 1] > 0.95  # and neither late nor early
    if path.suffix == ".wav":  # whose fields mutagen does not read
        comment = soundfile.SoundFile(path).comment
    else:
        tags = mutagen.File(path).tags
        comment = "".join(tags.get("TXXX:comment") or tags.get("comment") or tags["description"])
    told = json.loads(comment)
    assert told["seed"] == 3 and told["model"]["sha256"] == "ab" and told["mix"]["bits"] == bits
    assert told == settings_of(path) == settings_of(path.with_suffix(".json"))
    band.save(path, bits=bits, force=True)
    assert path.read_bytes() == first and mixed.sample_rate_hz == 44_100


def test_saving_refuses_what_is_there_and_what_no_format_has(band, tmp_path):
    (tmp_path / "b.json").write_text("mine")
    for how in ({"path": "b.wav"}, {"path": "a.xyz"}, {"path": "a.mp3", "bits": 24}, {"path": "a.flac", "bits": 32}):
        with pytest.raises(InputError):
            band.save(tmp_path / how.pop("path"), **how)
    for how in (
        {"path": 3},
        {"path": "\0.wav"},
        {"path": tmp_path / "a.wav", "bits": "16"},
        {"path": tmp_path / "a.wav", "bits": True},
    ):
        with pytest.raises(InputError):
            band.save(**how)
    assert [p.name for p in tmp_path.iterdir()] == ["b.json"]
    soundfile.write(tmp_path / "plain.wav", voice(), 24_000)
    for name in ("b.json", "plain.wav", "nowhere.mp3"):
        with pytest.raises(InputError, match="cannot be read"):
            settings_of(tmp_path / name)


def test_a_notebook_gets_two_players(band):
    page = band._repr_html_()
    assert page.count("<audio controls src='data:audio/mpeg;base64,") == 2 and "a take.wav" in page
    odd = Band(band.instrumental, {}, Vocal(band.vocal.audio, 44_100, "<b>.wav"), SETTINGS)
    assert "<b>" not in odd._repr_html_()
