"""Speed of the paper's tokenizers at full size, random weights: seconds of audio a second.

    python benchmarks/tokenize_songs.py [--quick] [--device cuda] [--out benchmarks/results/tokenize.json]

Songs of 30 s, a vocal and an instrumental each. `bare` calls transformers' models one after another as the extractor
must at least: HuBERT for both stems, layers above the ninth cut off, EnCodec at 6 kbps for the instrumental; on a GPU
with 8 songs at once. `extractor` is `corpus.extraction`: files read, resampled, noise added, k-means, codes, a shard
written. `common practice` is what fairseq-style scripts do: every file alone, all layers of HuBERT run, all hidden
states kept, then the same k-means and EnCodec. HuBERT has the extractor's dtype in all three, and torch its two
threads. All take turns, round by round, since machines drift and ratios hold.

Memory is of a process of its own for each row (Linux): its high-water mark above what it holds once the models are
loaded and have heard a second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import transformers
from machine import machine
from report import markdown, spread
from tqdm import tqdm

from hafm_jax.audio.files import write_audio
from hafm_jax.corpus import extraction
from hafm_jax.corpus.screening import Limits
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ, SEMANTIC_SAMPLE_RATE_HZ
from hafm_jax.tokenizers.codecs import CONFIG_FILE
from hafm_jax.tokenizers.folder import TORCH_THREADS, load_tokenizers
from hafm_jax.tokenizers.semantic import VOCAL_NOISE_SIGMA, load_semantic, nearest_centroids, save_semantic

LAYER = 9
SONG_S = 30
SHORT_S = 10
ROUNDS = 3
MEMORY = ((1, 30), (1, 120), (1, 480), (12, 180))  # songs, and seconds of each
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
    "conv_bias": True,
}  # facebook/hubert-large-ll60k; base is HubertConfig's default


def make_tokenizers(folder: Path, name: str) -> Path:
    """TOKENIZERS with a HuBERT of full size, an EnCodec of full size and 500 centroids, all random."""
    torch.manual_seed(0)
    config = transformers.HubertConfig(**(LARGE if name == "large" else {}))
    transformers.HubertModel(config).save_pretrained(folder / name)
    if name == "large":
        transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder / name)
    transformers.EncodecModel(transformers.EncodecConfig()).save_pretrained(folder / "encodec")
    centroids = np.random.default_rng(0).standard_normal((500, config.hidden_size), np.float32)
    tokenizers = folder / f"tokenizers_{name}"
    facts = {"features": "hubert", "source": str(folder / name), "layer": LAYER}
    save_semantic(tokenizers / "semantic", facts, centroids)
    (tokenizers / "codec").mkdir()
    codec = {"format_version": 1, "codec": "encodec", "source": str(folder / "encodec")}
    (tokenizers / "codec" / CONFIG_FILE).write_text(json.dumps(codec))
    return tokenizers


def make_songs(folder: Path, number: int, seconds: float) -> tuple[str, ...]:
    names = tuple(f"{seconds:g}s-{i}" for i in range(number))
    for i, name in enumerate(names):
        song = folder / "train" / name
        song.mkdir(parents=True)
        rng = np.random.default_rng(i)
        for stem in ("vocals", "instrumental"):
            noise = 0.1 * rng.standard_normal(int(seconds * CODEC_SAMPLE_RATE_HZ), np.float32)
            write_audio(song / f"{stem}.wav", noise, CODEC_SAMPLE_RATE_HZ)
    return names


def unit(folder: Path, tokenizers: Path, names: tuple[str, ...]) -> extraction.Unit:
    return extraction.Unit(
        songs=folder / "songs",
        tokenizers=tokenizers,
        out=folder / "tokens",
        split="train",
        number=0,
        num_units=1,
        names=names,
        noise_sigma=VOCAL_NOISE_SIGMA,
        seed=0,
        max_s=Limits().max_s,
        dtype=None,
        facts=load_tokenizers(tokenizers, None).facts,
    )


def extract(unit: extraction.Unit) -> None:
    unit.receipt.unlink(missing_ok=True)
    unit.shard.parent.mkdir(parents=True, exist_ok=True)
    extraction.extract_unit(unit)


class Subject(NamedTuple):
    run: Callable[[], object]
    audio_s: float  # that a run goes through
    prepare: Callable[[], object] = lambda: None  # before the clock starts


def rates(folder: Path, device: str, songs: int, rounds: int) -> dict[str, dict]:
    """Subject -> seconds of audio a second."""
    torch.set_num_threads(TORCH_THREADS)
    subjects: dict[str, Subject] = {}
    names = make_songs(folder / "songs", songs, SONG_S)
    dtype, batch = (torch.float16, min(8, songs)) if device == "cuda" else (torch.float32, 1)

    def noise(*shape: int) -> torch.Tensor:
        return 0.1 * torch.randn(*shape, device=device)

    def clips(number: int, seconds: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What HuBERT and what EnCodec hear."""
        semantic = noise(number, seconds * SEMANTIC_SAMPLE_RATE_HZ + 80).to(dtype)
        return semantic, noise(number, 1, seconds * CODEC_SAMPLE_RATE_HZ)

    tokenizers_of = {name: make_tokenizers(folder, name) for name in ("large", "base")}
    codec = transformers.EncodecModel.from_pretrained(folder / "encodec").eval().to(device)
    one_16k, one_24k = clips(1, SONG_S)
    short_16k, short_24k = clips(1, SHORT_S)
    some_16k, some_24k = clips(batch, SONG_S)

    def encode(audio):
        return codec.encode(audio, bandwidth=6.0).audio_codes

    def hear(model, audio):
        return model(audio).last_hidden_state

    def bare(model):
        for _ in range(songs // batch):
            hear(model, some_16k), hear(model, some_16k), encode(some_24k).cpu()

    def practice(model, centroids):
        for _ in range(songs):
            for _ in range(2):
                hidden = model(one_16k, output_hidden_states=True).hidden_states[LAYER][0]
                nearest_centroids(hidden.float().cpu().numpy(), centroids)
            encode(one_24k).cpu()

    for name, tokenizers in tokenizers_of.items():
        whole, cut = (
            transformers.HubertModel.from_pretrained(folder / name, **layers).eval().to(device, dtype)
            for layers in ({}, {"num_hidden_layers": LAYER})
        )
        centroids = load_semantic(tokenizers / "semantic").centroids
        subjects[f"HuBERT-{name} to layer {LAYER}"] = Subject(partial(hear, cut, one_16k), SONG_S)
        if name == "large":
            short = f"clips of {SHORT_S} s"
            subjects[f"HuBERT-large to layer {LAYER}, {short}"] = Subject(partial(hear, cut, short_16k), SHORT_S)
            subjects["HuBERT-large, all 24 layers"] = Subject(partial(hear, whole, one_16k), SONG_S)
            subjects["EnCodec encode"] = Subject(partial(encode, one_24k), SONG_S)
            subjects[f"EnCodec encode, {short}"] = Subject(partial(encode, short_24k), SHORT_S)
        subjects[f"bare, {name}"] = Subject(partial(bare, cut), songs * SONG_S)
        # a process keeps one pair of tokenizers, and two take turns here
        load = partial(load_tokenizers, tokenizers, None)
        run = partial(extract, unit(folder, tokenizers, names))
        subjects[f"extractor, {name}"] = Subject(run, songs * SONG_S, load)
        subjects[f"common practice, {name}"] = Subject(partial(practice, whole, centroids), songs * SONG_S)

    found: dict[str, list[float]] = {name: [] for name in subjects}
    with torch.inference_mode():
        for number in tqdm(range(rounds + 1), unit="round"):
            for name, subject in subjects.items():
                subject.prepare()
                started_s = time.perf_counter()
                subject.run()
                if device == "cuda":
                    torch.cuda.synchronize()
                if number:  # the first round warms up
                    found[name].append(subject.audio_s / (time.perf_counter() - started_s))
    return {name: spread(values) for name, values in found.items()}


def resident_bytes(field: str) -> int:
    """VmRSS, what the process holds, or VmHWM, the most that it held."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{field}:")[1].split()[0])


def memory_worker(folder: Path, number: int, seconds: int) -> None:
    one = unit(folder, folder / "tokenizers_large", make_songs(folder / f"{number}x{seconds}", number, seconds))
    warm = folder / f"{number}x{seconds}-warm"
    extract(one._replace(names=make_songs(warm, 1, 1), songs=warm))
    Path("/proc/self/clear_refs").write_text("5")  # forgets the high-water mark, which loading the models set
    before = resident_bytes("VmRSS")
    extract(one._replace(songs=folder / f"{number}x{seconds}"))
    print(json.dumps(resident_bytes("VmHWM") - before))


def table(measured: dict) -> str:
    rows = [["", "seconds of audio a second", "low-high"]]
    rows += [
        [name, f"{rate['median']:.1f}", f"{rate['low']:.1f}-{rate['high']:.1f}"]
        for name, rate in measured["rates"].items()
    ]
    ratios = [["extractor against", "large", "base"]]
    for other in ("bare", "common practice"):
        pair = [
            measured["rates"][f"extractor, {name}"]["median"] / measured["rates"][f"{other}, {name}"]["median"]
            for name in ("large", "base")
        ]
        ratios.append([other, *(f"{ratio:.2f}" for ratio in pair)])
    memory = [["", *measured["bytes_above_models"]]]
    memory.append(["memory above the models'", *(f"{n / 1e9:.2f} GB" for n in measured["bytes_above_models"].values())])
    return "\n\n".join(map(markdown, (rows, ratios, memory)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of one song")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/tokenize.json"))
    parser.add_argument("--memory-worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_worker:
        folder, number, seconds = arguments.memory_worker
        memory_worker(Path(folder), int(number), int(seconds))
        return
    songs, rounds = (1, 1) if arguments.quick else (2 if arguments.device == "cpu" else 16, ROUNDS)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        measured = {"song_s": SONG_S, "songs": songs, "rates": rates(folder, arguments.device, songs, rounds)}
        measured["bytes_above_models"] = {}
        for number, seconds in tqdm(MEMORY[: 1 if arguments.quick else None], desc="memory", unit="row"):
            command = [sys.executable, __file__, "--memory-worker", directory, str(number), str(seconds)]
            done = subprocess.run(command, env=os.environ, stdout=subprocess.PIPE, text=True, check=True)
            row = f"{number} {'song' if number == 1 else 'songs'} of {seconds} s"
            measured["bytes_above_models"][row] = json.loads(done.stdout.splitlines()[-1])
    document = {"machine": machine("torch", "transformers"), "device": arguments.device, "measured": measured}
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")
    print(table(measured))


if __name__ == "__main__":
    main()
