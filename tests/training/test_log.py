"""The log of a run, read back by other readers than the writer."""

from __future__ import annotations

import io
import json
import time

import numpy as np
import pytest
import soundfile
from helpers import read_lines
from hypothesis import given
from hypothesis import strategies as st
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event

from hafm_jax.common.errors import OutputError
from hafm_jax.dataset.tfrecord import FOOTER, HEADER, walk_records
from hafm_jax.training.log import RunLog, read_metrics

RATE_HZ = 24_000


def board(workdir) -> list[tuple[int, str, float | bytes]]:
    """(step, name, number or encoded sound) of what TensorBoard would show."""
    shown = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        content = path.read_bytes()
        for offset, length, _ in walk_records(path):  # event files are TFRecords
            start = offset + HEADER.size
            event = Event.FromString(content[start : start + length])
            for value in event.summary.value:
                sound = value.HasField("audio")
                shown.append((event.step, value.tag, value.audio.encoded_audio_string if sound else value.simple_value))
        assert start + length + FOOTER.size == len(content)
    return shown


def test_values_are_in_both_places(tmp_path):
    log = RunLog(tmp_path, 0, tokens_per_step=100, flops_per_step=1e12, writes=True)
    log.log(2, {"loss": np.float32(1.5), "loss_per_codebook": np.array([1.0, 2.0], np.float32)})
    log.write(2, {"validation_loss": 1.25})
    log.close()
    first, second = read_lines(tmp_path / "metrics.jsonl")
    assert first["loss"] == 1.5 and first["loss_per_codebook"] == [1.0, 2.0] and first["step"] == 2
    assert second == {"step": 2, "validation_loss": 1.25}
    shown = {name: (step, value) for step, name, value in board(tmp_path)}
    assert shown["loss"] == (2, 1.5) and shown["validation_loss"] == (2, 1.25)
    assert shown["loss_per_codebook/0"] == (2, 1.0) and shown["loss_per_codebook/1"] == (2, 2.0)


def test_rates_count_training_alone(tmp_path, monkeypatch):
    clock_s = [10.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock_s[0])
    monkeypatch.setattr("hafm_jax.training.log.peak_flops", lambda: 8e12)
    log = RunLog(tmp_path, 4, tokens_per_step=100, flops_per_step=1e12, writes=True)
    clock_s[0] += 1.5  # four steps in two seconds, half a second of them waiting; one second of evaluation
    with log.waiting():
        clock_s[0] += 0.5
    with log.paused():
        clock_s[0] += 1.0
    log.log(8, {"loss": 1.0})
    clock_s[0] += 1.0
    log.log(9, {"loss": 1.0})
    log.close()
    names = ("seconds", "tokens_per_s", "tflops_per_s", "input_wait", "mfu")
    found = [[line[name] for name in names] for line in read_lines(tmp_path / "metrics.jsonl")]
    np.testing.assert_allclose(found, [(2.0, 200.0, 2.0, 0.25, 0.25), (1.0, 100.0, 1.0, 0.0, 0.125)], rtol=1e-6)


def test_sounds_are_in_tensorboard_and_files(tmp_path):
    time_s = np.arange(RATE_HZ) / RATE_HZ
    sound = 1.5 * np.sin(2 * np.pi * 440 * time_s).astype(np.float32)  # too loud: clipped
    log = RunLog(tmp_path, 0, 1, 1.0, writes=True)
    log.audio(7, "generated-0", sound, RATE_HZ)
    log.close()
    ((step, name, encoded),) = board(tmp_path)
    assert (step, name) == (7, "generated-0")
    for source in (io.BytesIO(encoded), tmp_path / "sounds" / "generated-0-7.wav"):
        found, rate_hz = soundfile.read(source)
        assert rate_hz == RATE_HZ and found.shape == sound.shape
        np.testing.assert_allclose(found, np.clip(sound, -1, 1), atol=1e-4)


def test_only_the_first_process_writes(tmp_path):
    log = RunLog(tmp_path, 0, 1, 1.0, writes=False)
    log.log(1, {"loss": 1.0})
    log.audio(1, "sound", np.zeros(10, np.float32), RATE_HZ)
    log.close()
    assert list(tmp_path.iterdir()) == []


RECORDS = [{"step": step, "loss": 1.5 + step, "loss_per_codebook": [1.0, float("nan")]} for step in range(1, 6)]
NOT_RECORDS = ["", "  ", "{", "[1]", "7", "null", "{}", '{"step": "x"}', '{"step": true}', '{"step": 1, "loss": null}']
NOT_RECORDS += ['{"step": 1, "loss": "low"}', '{"step": 1, "loss": {}}', "[" * 50_000, '{"step": 1.5}']


@given(
    lines=st.lists(
        st.sampled_from([json.dumps(record) for record in RECORDS] + NOT_RECORDS).map(str.encode)
        | st.binary(max_size=8).filter(lambda line: b"\n" not in line and b"\r" not in line)
    ),
    torn=st.binary(max_size=40),
    first_step=st.integers(0, 6),
)
def test_records_are_read_whatever_surrounds_them_and_a_resumed_run_continues_them(
    lines, torn, first_step, tmp_path_factory
):
    workdir = tmp_path_factory.mktemp("run")
    path = workdir / "metrics.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines) + torn.replace(b"\n", b""))
    whole = {json.dumps(record).encode(): record for record in RECORDS}
    expected = [whole[line] for line in lines if line in whole and whole[line]["step"] <= first_step]
    assert str(read_metrics(workdir, first_step)) == str(expected)  # as text, where NaN is itself
    log = RunLog(workdir, first_step, 1, 1.0, writes=True)
    log.write(first_step + 1, {"loss": 0.5})
    log.close()
    assert str(read_lines(path)) == str([*expected, {"step": first_step + 1, "loss": 0.5}])


def test_a_missing_log_has_no_records(tmp_path):
    assert read_metrics(tmp_path) == []


def test_a_full_disk_is_called_one_and_does_not_hang(tmp_path, monkeypatch):
    log = RunLog(tmp_path, 0, 1, 1.0, writes=True)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    for _ in range(20):  # more than a queue of events would hold
        with pytest.raises(OutputError, match=r"cannot write .*the disk is full"):
            log.write(1, {"loss": 1.0})
    monkeypatch.setattr(EventsWriter, "write_event", lambda *_: open("/dev/full", "w").write("x" * 10**5))
    with pytest.raises(OutputError, match="the disk is full"):
        log.audio(1, "sound", np.zeros(10, np.float32), RATE_HZ)
    log.close()
