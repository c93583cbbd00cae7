"""A tiny soundfont: one looped sample of a sawtooth at middle C, which all 128 programs and the drum kits play."""

import struct
from pathlib import Path

import numpy as np

PERIOD_SAMPLES, NUM_PERIODS, ROOT_MIDI = 84, 4, 60
RATE_HZ = round(261.6256 * PERIOD_SAMPLES)
GUARD_SAMPLES = 46  # of zeros after each sample: the SoundFont 2.01 specification, section 6.1
SAMPLE_ID, INSTRUMENT, SAMPLE_MODES, RELEASE = 53, 41, 54, 38  # generators
KITS = (0, 8, 16, 32, 40)


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _list(kind: bytes, *chunks: bytes) -> bytes:
    return _chunk(b"LIST", kind + b"".join(chunks))


def write_soundfont(path: Path) -> Path:
    length = PERIOD_SAMPLES * NUM_PERIODS
    wave = (20_000 * (1 - 2 * (np.arange(length) % PERIOD_SAMPLES) / PERIOD_SAMPLES)).astype("<i2")
    samples = wave.tobytes() + bytes(2 * GUARD_SAMPLES)
    places = [(0, program) for program in range(128)] + [(128, kit) for kit in KITS]
    headers = b"".join(
        struct.pack("<20sHHHIII", b"made %d %d" % (bank, program), program, bank, i, 0, 0, 0)
        for i, (bank, program) in enumerate(places)
    )
    headers += struct.pack("<20sHHHIII", b"EOP", 0, 0, len(places), 0, 0, 0)
    bags = b"".join(struct.pack("<HH", i, 0) for i in range(len(places) + 1))
    preset_generators = struct.pack("<HH", INSTRUMENT, 0) * len(places) + bytes(4)
    instruments = struct.pack("<20sH", b"made", 0) + struct.pack("<20sH", b"EOI", 1)
    instrument_generators = struct.pack("<HhHhHH", RELEASE, -4000, SAMPLE_MODES, 1, SAMPLE_ID, 0)
    sample = struct.pack(
        "<20sIIIIIBbHH", b"saw", 0, length, PERIOD_SAMPLES, length - PERIOD_SAMPLES, RATE_HZ, ROOT_MIDI, 0, 0, 1
    )
    sample += struct.pack("<20sIIIIIBbHH", b"EOS", 0, 0, 0, 0, 0, 0, 0, 0, 0)
    body = b"sfbk" + _list(
        b"INFO", _chunk(b"ifil", struct.pack("<HH", 2, 1)), _chunk(b"isng", b"EMU8000\0"), _chunk(b"INAM", b"made\0\0")
    )
    body += _list(b"sdta", _chunk(b"smpl", samples))
    body += _list(
        b"pdta",
        _chunk(b"phdr", headers),
        _chunk(b"pbag", bags),
        _chunk(b"pmod", bytes(10)),
        _chunk(b"pgen", preset_generators),
        _chunk(b"inst", instruments),
        _chunk(b"ibag", struct.pack("<HHHH", 0, 0, 3, 0)),
        _chunk(b"imod", bytes(10)),
        _chunk(b"igen", instrument_generators + bytes(4)),
        _chunk(b"shdr", sample),
    )
    path.write_bytes(_chunk(b"RIFF", body))
    return path
