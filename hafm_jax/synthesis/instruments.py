"""The sounds of the synthesised songs: a singer, tuned instruments and drums. Only numpy, no loop over samples.

Tuned instruments are sums of harmonics whose decay grows with their number, which for a complex z is the polynomial
sum_k a_k z^k with z = exp((2 pi i f - d) t): evaluated by Horner's rule, one multiplication per harmonic.
The singer is a source (a table of one glottal period) filtered by formants, frame by frame, in the frequency domain.

Axes: S samples, F control frames, B frequency bins, N formants.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hafm_jax.synthesis.composition import Note

CONTROL_RATE_HZ = 200  # of the singer's pitch, level and formants: ours
NUM_FORMANTS = 5
ARTICULATIONS = {"sung": 0.88, "hummed": 0.07, "whistled": 0.05}  # shares of the songs: ours

# F1 to F3 of men, Hz: Peterson & Barney 1952, table II. F4 and F5 are ours: a neutral tract's, lowered as singers do.
VOWELS_HZ = {
    "i": (270, 2290, 3010),
    "I": (390, 1990, 2550),
    "E": (530, 1840, 2480),
    "ae": (660, 1720, 2410),
    "a": (730, 1090, 2440),
    "O": (570, 840, 2410),
    "U": (440, 1020, 2240),
    "u": (300, 870, 2240),
    "V": (640, 1190, 2390),
}
UPPER_FORMANTS_HZ = (3200.0, 3900.0)
NASAL_HZ = (270.0, 1100.0, 2200.0, *UPPER_FORMANTS_HZ)  # ours: a murmur for m, n and l
BANDWIDTHS_HZ = (70.0, 90.0, 130.0, 180.0, 250.0)  # after Klatt 1980, a little wider for singing


@dataclass(frozen=True)
class Voice:
    """`midi_range` is the tessitura, `formant_scale` the tract's formants over those of an average man."""

    name: str
    midi_range: tuple[int, int]
    formant_scale: float


# Ranges: common choral tessituras. Scales: women about 1.17 (Peterson & Barney 1952), the others around it are ours.
VOICES = {
    v.name: v
    for v in (
        Voice("bass", (42, 60), 0.95),
        Voice("baritone", (45, 63), 0.98),
        Voice("tenor", (49, 67), 1.02),
        Voice("alto", (55, 73), 1.12),
        Voice("mezzo", (57, 75), 1.15),
        Voice("soprano", (60, 78), 1.19),
        Voice("child", (60, 76), 1.30),
    )
}


@dataclass(frozen=True)
class Timbre:
    """A tuned instrument. `amplitudes` of harmonics 1, 2, ...; decays in 1/s for harmonic 0 and added per harmonic.

    `held` instruments do not decay, and rise over `attack_s`; `detune_cents` adds a second, detuned voice.
    """

    amplitudes: tuple[float, ...]
    decay_per_s: float
    decay_slope_per_s: float
    attack_s: float = 0.003
    release_s: float = 0.06
    held: bool = False
    detune_cents: float = 0.0


def _power(exponent: float, count: int, odd: float = 1.0) -> tuple[float, ...]:
    """Amplitudes k**-exponent, even harmonics times `odd`."""
    return tuple(k**-exponent * (1.0 if k % 2 else odd) for k in range(1, count + 1))


def _pluck(position: float, exponent: float, count: int) -> tuple[float, ...]:
    """Amplitudes of a string plucked at this fraction of its length."""
    return tuple(abs(np.sin(np.pi * k * position)) * k**-exponent for k in range(1, count + 1))


TIMBRES = {  # all ours, tuned by ear and by spectrogram
    "piano": Timbre(_power(1.25, 20), 1.1, 0.35, 0.003, 0.10),
    "electric_piano": Timbre((1.0, 0.30, 0.10, 0.16, 0.04, 0.03, 0.06, 0.02), 1.0, 0.55, 0.004, 0.10, detune_cents=3.0),
    "steel_guitar": Timbre(_pluck(0.16, 1.0, 26), 1.2, 0.32, 0.002, 0.08),
    "nylon_guitar": Timbre(_pluck(0.30, 1.4, 16), 1.6, 0.55, 0.003, 0.08),
    "synth_pluck": Timbre(_power(1.0, 20, odd=0.3), 2.2, 0.9, 0.003, 0.05),
    "marimba": Timbre((1.0, 0.0, 0.0, 0.35, 0.0, 0.0, 0.0, 0.0, 0.0, 0.10), 4.0, 1.2, 0.002, 0.05),
    "organ": Timbre((1.0, 0.7, 0.5, 0.35, 0.0, 0.2, 0.0, 0.15), 0.0, 0.0, 0.012, 0.04, held=True, detune_cents=2.0),
    "pad": Timbre(_power(1.7, 10), 0.0, 0.0, 0.18, 0.25, held=True, detune_cents=9.0),
    "strings": Timbre(_power(1.2, 18), 0.0, 0.0, 0.09, 0.15, held=True, detune_cents=7.0),
    "flute": Timbre((1.0, 0.35, 0.12, 0.06, 0.02), 0.0, 0.0, 0.05, 0.08, held=True),
    "violin": Timbre(_power(1.1, 16), 0.0, 0.0, 0.06, 0.10, held=True, detune_cents=4.0),
    "synth_lead": Timbre(_power(1.0, 18, odd=0.4), 0.0, 0.0, 0.01, 0.06, held=True, detune_cents=5.0),
    "brass": Timbre(_power(0.8, 14), 0.3, 0.1, 0.035, 0.06),
    "music_box": Timbre((1.0, 0.0, 0.25, 0.0, 0.0, 0.1), 2.5, 0.8, 0.002, 0.10),
    "fingered_bass": Timbre(_power(1.3, 12), 1.0, 0.45, 0.004, 0.05),
    "synth_bass": Timbre(_power(1.1, 14, odd=0.5), 0.3, 0.25, 0.004, 0.04),
    "upright_bass": Timbre(_power(1.7, 10), 2.0, 0.6, 0.006, 0.06),
}
LONGEST_RING_S = 3.0  # a decaying note is silent enough by then


def render_note(timbre: Timbre, midi: float, seconds: float, rate_hz: int) -> np.ndarray:
    """One note, float32 [S], with its release after `seconds`. Peak about 1."""
    seconds = seconds if timbre.held else min(seconds, LONGEST_RING_S)
    num_samples = int((seconds + timbre.release_s) * rate_hz)
    frequency_hz = 440.0 * 2.0 ** ((midi - 69) / 12)
    amplitudes = timbre.amplitudes[: max(1, int(0.45 * rate_hz / frequency_hz))]
    t_s = np.arange(num_samples) / rate_hz
    # High strings are short: decay grows with the root of the frequency, as on a piano (ours).
    brisk = (frequency_hz / 220.0) ** 0.5
    note = np.zeros(num_samples, np.float32)
    for cents in {timbre.detune_cents, -timbre.detune_cents}:
        turns = frequency_hz * 2.0 ** (cents / 1200) * t_s
        phase = (2 * np.pi * (turns - np.floor(turns))).astype(np.float32)
        z = np.empty(num_samples, np.complex64)
        z.real, z.imag = np.cos(phase), np.sin(phase)
        if timbre.decay_slope_per_s:
            z *= np.exp(-timbre.decay_slope_per_s * brisk * t_s).astype(np.float32)
        total = np.full(num_samples, amplitudes[-1], np.complex64)
        for amplitude in amplitudes[-2::-1]:
            total *= z
            total += np.float32(amplitude)
        note += (total * z).imag
    if timbre.decay_per_s:
        note *= np.exp(-timbre.decay_per_s * brisk * t_s).astype(np.float32)
    note *= 1.0 / np.sum(amplitudes) ** 0.5 / (2.0 if timbre.detune_cents else 1.0)
    attack = min(int(timbre.attack_s * rate_hz) + 1, num_samples)
    release = min(int(timbre.release_s * rate_hz) + 1, num_samples)
    note[:attack] *= np.linspace(0, 1, attack, dtype=np.float32)
    note[-release:] *= np.linspace(1, 0, release, dtype=np.float32) ** 2
    return note


def shaped_noise(rng: np.random.Generator, seconds: float, rate_hz: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Noise of unit RMS, float32 [S], band-passed with slopes of about 12 dB an octave."""
    num_samples = max(8, int(seconds * rate_hz))
    spectrum = np.fft.rfft(rng.standard_normal(num_samples, dtype=np.float32))
    f_hz = np.fft.rfftfreq(num_samples, 1 / rate_hz).astype(np.float32)
    gain = f_hz**2 / (f_hz**2 + low_hz**2) / (1 + (f_hz / high_hz) ** 4) ** 0.5
    noise = np.fft.irfft(spectrum * gain, num_samples).astype(np.float32)
    return noise / np.sqrt(np.mean(noise**2))


def drum_kit(rng: np.random.Generator, rate_hz: int) -> dict[str, np.ndarray]:
    """One-shots by name, float32 [S], peak 1 times a mixing level. Each kit has a slightly different tuning."""

    def decay(seconds: float, time_constant_s: float) -> np.ndarray:
        return np.exp(-np.arange(int(seconds * rate_hz), dtype=np.float32) / np.float32(rate_hz * time_constant_s))

    def sweep(seconds: float, from_hz: float, to_hz: float, time_constant_s: float) -> np.ndarray:
        frequency_hz = to_hz + (from_hz - to_hz) * decay(seconds, time_constant_s)
        return np.sin(2 * np.pi * np.cumsum(frequency_hz, dtype=np.float64) / rate_hz).astype(np.float32)

    def burst(seconds: float, time_constant_s: float, low_hz: float, high_hz: float = 9_500.0) -> np.ndarray:
        envelope = decay(seconds, time_constant_s)
        return shaped_noise(rng, seconds, rate_hz, low_hz, high_hz)[: len(envelope)] * envelope

    tune = float(rng.uniform(0.88, 1.12))
    ring = float(rng.uniform(0.8, 1.25))
    snare = 0.5 * burst(0.25, 0.055 * ring, 1500) + 0.9 * sweep(0.25, 260 * tune, 185 * tune, 0.02) * decay(0.25, 0.05)
    clap_taps = [
        np.pad(burst(0.2, 0.04 if i == 2 else 0.006, 1000, 4000), (int(i * 0.011 * rate_hz), 0)) for i in range(3)
    ]
    clap = sum(tap[: int(0.2 * rate_hz)] for tap in clap_taps)
    kit = {  # name: (one-shot, level)
        "kick": (
            sweep(0.35, 150 * tune, 50 * tune, 0.035) * decay(0.35, 0.11 * ring) + 0.05 * burst(0.35, 0.004, 2000),
            1.0,
        ),
        "snare": (snare, 0.7),
        "clap": (clap, 0.55),
        "rim": (sweep(0.08, 1700 * tune, 820 * tune, 0.004) * decay(0.08, 0.014), 0.45),
        "hat": (burst(0.09, 0.018 * ring, 6500, 11_000), 0.28),
        "open_hat": (burst(0.35, 0.09 * ring, 6000, 11_000), 0.28),
        "ride": (burst(0.8, 0.14, 5000, 10_000) + 0.3 * sweep(0.8, 3300, 3290, 1.0) * decay(0.8, 0.2), 0.2),
        "shaker": (burst(0.09, 0.03, 5500) * np.minimum(1, np.arange(int(0.09 * rate_hz)) / (0.012 * rate_hz)), 0.25),
        "tom": (sweep(0.3, 160 * tune, 105 * tune, 0.05) * decay(0.3, 0.09), 0.7),
        "crash": (burst(1.4, 0.40, 3500), 0.35),
    }
    faded = {name: shot * np.minimum(1, np.linspace(40, 0, len(shot))) for name, (shot, _) in kit.items()}
    return {name: (kit[name][1] * shot / np.abs(shot).max()).astype(np.float32) for name, shot in faded.items()}


def sing(
    notes: list[Note], voice: Voice, articulation: str, rng: np.random.Generator, num_samples: int, rate_hz: int
) -> np.ndarray:
    """Sing the melody on changing vowels, hum or whistle it: float32 [S], unnormalised. Legato inside a phrase, silent
    between phrases."""
    hop = rate_hz // CONTROL_RATE_HZ
    t_s = np.arange(num_samples // hop + 2) * (hop / rate_hz)  # [F]
    midi, level, formants, noise, consonants = _gestures(notes, voice, rng, t_s, rate_hz)
    if articulation != "sung":
        consonants = []
        formants[:] = np.array(NASAL_HZ) * voice.formant_scale
    f0_hz = 440.0 * 2.0 ** ((midi - 69) / 12)
    # Above its first formant a singer opens the jaw: F1 follows the pitch (Sundberg 1975).
    formants[:, 0] = np.maximum(formants[:, 0], 1.05 * f0_hz)

    tilt = float(rng.uniform(1.15, 1.5))  # source and radiation together, harmonics k**-tilt; 1 is pressed, 2 is flutey
    if articulation == "whistled":
        tilt = 5.0  # almost only the fundamental
    sample_s = np.arange(num_samples) / rate_hz
    f0_per_sample_hz = np.interp(sample_s, t_s, f0_hz)
    turns = np.cumsum(f0_per_sample_hz / rate_hz)
    source = _glottal_source(turns, f0_per_sample_hz, tilt, rate_hz)

    # Vowels differ in level by 10 dB and more at the same effort; singers compensate for this, and so does this gain.
    harmonics = np.arange(1, 25)
    power = _tract_power(formants, f0_hz[:, None] * harmonics) * harmonics ** (-2.0 * tilt)
    gain = 1.0 / np.sqrt(power.sum(axis=1) + 1e-9)
    source *= np.interp(sample_s, t_s, level * gain).astype(np.float32)
    breathiness = float(rng.uniform(0.006, 0.02))
    hiss = np.interp(sample_s, t_s, (breathiness * level + noise) * gain).astype(np.float32)
    source += hiss * rng.standard_normal(num_samples, dtype=np.float32)
    sung = _filter_by_formants(source, formants, voice.formant_scale, hop, rate_hz)
    for start, sound in consonants:
        stop = min(start + len(sound), num_samples)
        sung[start:stop] += sound[: stop - start]
    return sung


def _gestures(notes: list[Note], voice: Voice, rng: np.random.Generator, t_s: np.ndarray, rate_hz: int):
    """Control curves [F] of pitch (MIDI), level and breath noise, formants [F, N] in Hz, consonants (start, [S])."""
    frames = len(t_s)
    midi, level, noise = np.zeros(frames), np.zeros(frames), np.zeros(frames)
    vibrato, scoop = np.zeros(frames), np.zeros(frames)
    names = list(VOWELS_HZ)
    tract = {n: np.array((*VOWELS_HZ[n], *UPPER_FORMANTS_HZ)) * voice.formant_scale for n in names}
    formants = np.tile(tract["V"], (frames, 1))
    depth, delay_s = rng.uniform(0.12, 0.38), rng.uniform(0.18, 0.35)  # semitones; vibrato sets in late, on long notes
    breathes = rng.random() < 0.6
    sibilants = {  # seconds, band in Hz, level: ours, after the usual spectra of s, sh, f, t, k
        "s": (0.09, 4500, 9000, 0.10),
        "sh": (0.09, 2200, 5500, 0.11),
        "f": (0.07, 1500, 8000, 0.035),
        "t": (0.025, 3000, 8000, 0.12),
        "k": (0.03, 1300, 3500, 0.12),
    }
    sounds = {}
    for name, (seconds, low_hz, high_hz, loudness) in sibilants.items():
        sound = shaped_noise(rng, seconds, rate_hz, low_hz, high_hz)
        sounds[name] = (loudness * sound * np.sin(np.pi * np.linspace(0, 1, len(sound)) ** 0.7)).astype(np.float32)
    consonants = []

    def frame(seconds: float) -> int:
        return min(max(round(seconds * CONTROL_RATE_HZ), 0), frames)

    for i, note in enumerate(notes):
        opens = i == 0 or notes[i - 1].phrase != note.phrase
        closes = i + 1 == len(notes) or notes[i + 1].phrase != note.phrase
        start, end = frame(note.start_s), frame(note.end_s - (0.05 if closes else 0.0))
        since_s = t_s[start:end] - note.start_s
        # The pitch changes a little before the beat, to be right on it; in a rest, just before the next phrase.
        turn = frame(note.start_s - 0.025) if not opens else 0 if i == 0 else frame(note.start_s - 0.15)
        midi[turn:] = note.midi
        fade = 1.0 - 0.2 * np.linspace(0, 1, max(end - start, 1))[: end - start]
        level[start:end] = note.velocity * fade
        vibrato[start:end] = depth * np.clip((since_s - delay_s) / 0.25, 0, 1)
        formants[frame(note.start_s - 0.03) :] = tract[names[int(rng.integers(len(names)))]]
        if opens:
            scoop[start:end] = -rng.uniform(0.0, 1.2) * np.exp(-since_s / 0.035)
            if breathes and note.start_s > 0.5:
                breath = slice(frame(note.start_s - 0.40), frame(note.start_s - 0.15))
                noise[breath] += 0.004 * np.hanning(breath.stop - breath.start)
        gap_s = min(0.06, 0.3 * (note.end_s - note.start_s))
        before = slice(frame(note.start_s - gap_s), start)
        kind = rng.choice(("none", "nasal", "stop", "fricative"), p=(0.2, 0.4, 0.2, 0.2))
        if kind == "nasal":
            level[before] = 0.35 * note.velocity
            formants[before] = np.array(NASAL_HZ) * voice.formant_scale
        elif kind != "none":
            level[before] = 0.0
            name = str(rng.choice(("t", "k") if kind == "stop" else ("s", "sh", "f")))
            first = int(note.start_s * rate_hz) - len(sounds[name])
            if first >= 0:
                consonants.append((first, sounds[name] * np.float32(note.velocity)))
        elif not opens:
            level[before] *= 0.6

    # No one sings exactly in tune: an offset for each note, and one before the first (ours, in semitones).
    intonation = np.full(frames, rng.normal(0, 0.06))
    for note in notes:
        intonation[frame(note.start_s - 0.05) :] = rng.normal(0, 0.08)
    drift = smooth(rng.normal(0, 1, frames), 41) * 6**0.5
    jitter = smooth(rng.normal(0, 1, frames), 3)
    rate = rng.uniform(5.0, 6.3) * (1 + 0.04 * drift)  # Hz
    wave = np.sin(2 * np.pi * np.cumsum(rate) / CONTROL_RATE_HZ)
    midi = smooth(midi + intonation, 15) + smooth(vibrato, 9) * wave + scoop + 0.05 * drift + 0.02 * jitter
    level = smooth(level, 7) * (1 + 0.02 * smooth(rng.normal(0, 1, frames), 3)) * (1 + 0.15 * smooth(vibrato, 9) * wave)
    formants = np.stack([smooth(column, 13) for column in formants.T], axis=1)
    return midi, level, formants, noise, consonants


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Running Hann-weighted mean over `width` frames (odd), edges held: [F] -> [F]."""
    window = np.hanning(width + 2)[1:-1]
    return np.convolve(np.pad(values, width // 2, mode="edge"), window / window.sum(), mode="valid")


def _glottal_source(turns: np.ndarray, f0_hz: np.ndarray, tilt: float, rate_hz: int) -> np.ndarray:
    """Harmonics k**-tilt up to just below half the rate: float32 [S], from one table per three semitones."""
    size, per_octave, lowest_hz = 2048, 4, 40.0
    row = np.clip(np.ceil(per_octave * np.log2(np.maximum(f0_hz, lowest_hz) / lowest_hz)), 0, 31).astype(np.int32)
    tables = np.zeros((32, size), np.float32)
    for r in range(int(row.min()), int(row.max()) + 1):
        count = max(1, min(int(0.46 * rate_hz / (lowest_hz * 2 ** (r / per_octave))), 200))
        spectrum = np.zeros(size // 2 + 1, np.complex64)
        k = np.arange(1, count + 1)
        spectrum[1 : count + 1] = -0.5j * size * k**-tilt
        tables[r] = np.fft.irfft(spectrum, size)
    place = (turns - np.floor(turns)) * size
    index = place.astype(np.int32)
    fraction = (place - index).astype(np.float32)
    flat = tables.reshape(-1)
    base = row * size
    here, there = flat[base + (index & (size - 1))], flat[base + ((index + 1) & (size - 1))]
    return here + fraction * (there - here)


def _tract_power(formants: np.ndarray, f_hz: np.ndarray) -> np.ndarray:
    """Squared gain of the formants [F, N] at frequencies [F, K]: float [F, K]."""
    power = np.ones_like(f_hz, dtype=np.float64)
    for n in range(NUM_FORMANTS):
        square = formants[:, n, None] ** 2
        power *= square**2 / ((square - f_hz**2) ** 2 + (BANDWIDTHS_HZ[n] * f_hz) ** 2)
    return power


def _filter_by_formants(source: np.ndarray, formants: np.ndarray, scale: float, hop: int, rate_hz: int) -> np.ndarray:
    """Pass the source [S] through resonators that move every frame [F, N]: overlap-add of Hann frames, float32 [S]."""
    window = np.hanning(4 * hop + 1)[:-1].astype(np.float32) / 2  # four frames overlap and sum to one
    fft_size = 1 << (8 * hop - 1).bit_length()  # twice the frame: room for the resonators to ring out
    f_hz = np.fft.rfftfreq(fft_size, 1 / rate_hz).astype(np.float32)
    # The poles above the fifth, of a uniform tract: without them the spectrum falls by 60 dB an octave (Fant 1960).
    upper = np.ones(len(f_hz), np.complex64)
    for n in range(NUM_FORMANTS + 1, 26):
        pole_hz = (2 * n - 1) * 480.0 * scale
        upper *= pole_hz**2 / (pole_hz**2 - f_hz**2 + 1j * (60.0 * n) * f_hz)
    padded = np.pad(source, (2 * hop, 6 * hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 4 * hop)[::hop]
    num_frames = min(len(frames), len(formants))
    pieces = -(-fft_size // hop)
    out = np.zeros((num_frames + pieces, hop), np.float32)
    for first in range(
        0, num_frames, 64
    ):  # small blocks stay in the cache: several times faster than all frames at once
        part = slice(first, min(first + 64, num_frames))
        damping = np.ones((part.stop - part.start, len(f_hz)), np.complex64)
        resonator = np.empty_like(damping)
        for n in range(NUM_FORMANTS):
            square = (formants[part, n, None] ** 2).astype(np.float32)
            np.subtract(1, f_hz**2 / square, out=resonator.real)
            np.divide(np.float32(BANDWIDTHS_HZ[n]) * f_hz, square, out=resonator.imag)
            damping *= resonator
        spectrum = np.fft.rfft(frames[part] * window, fft_size) * upper
        filtered = np.zeros((part.stop - part.start, pieces * hop), np.float32)
        filtered[:, :fft_size] = np.fft.irfft(spectrum / damping, fft_size)
        for i in range(pieces):
            out[part.start + i : part.stop + i] += filtered[:, i * hop : (i + 1) * hop]
    return out.reshape(-1)[2 * hop : 2 * hop + len(source)]
