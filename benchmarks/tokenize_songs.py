"""Speed of the paper's tokenizers at full size, random weights: seconds of audio a second.

    python benchmarks/tokenize_songs.py [--quick] [--device cuda] [--out benchmarks/results/tokenize.json]

Songs of 30 s, a vocal and an instrumental each. `bare` calls transformers' models one after another as the extractor
must at least: HuBERT for both stems, layers above the ninth cut off, EnCodec at 6 kbps for the instrumental.
`extractor` is `hafm_jax.extraction`: files read, resampled, noise added, k-means, codes, a shard written. `common
practice` is what fairseq-style scripts do: every file alone, all layers of HuBERT run, all hidden states kept, then the
same k-means and EnCodec. All take turns, round by round, since machines drift and ratios hold.

Memory is of a process of its own for each length (Linux): its high-water mark above what it holds once the models are
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

import numpy as np
import torch
import transformers
from machine import machine
from report import markdown, spread
from tqdm import tqdm

from hafm_jax import extraction
from hafm_jax.audio.codecs import CONFIG_FILE
from hafm_jax.audio.files import write_audio
from hafm_jax.audio.semantic import VOCAL_NOISE_SIGMA, load_semantic, nearest_centroids, save_semantic
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ, SEMANTIC_SAMPLE_RATE_HZ

LAYER = 9
SONG_S = 30
ROUNDS = 3
LENGTHS_S = (30, 120, 480)  # for memory
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
        folder / "songs", tokenizers, folder / "tokens", "train", 0, 1, names, VOCAL_NOISE_SIGMA, seed=0
    )


def extract(unit: extraction.Unit) -> None:
    unit.receipt.unlink(missing_ok=True)
    unit.shard.parent.mkdir(parents=True, exist_ok=True)
    extraction.extract_unit(unit)


def rates(folder: Path, device: str, songs: int, rounds: int) -> dict[str, dict]:
    """Subject -> seconds of audio a second."""
    subjects: dict[str, tuple[Callable[[], object], float]] = {}  # what to time, and how long its audio is
    names = make_songs(folder / "songs", songs, SONG_S)
    clip_16k = 0.1 * torch.randn(1, SONG_S * SEMANTIC_SAMPLE_RATE_HZ + 80, device=device)
    clip_24k = 0.1 * torch.randn(1, 1, SONG_S * CODEC_SAMPLE_RATE_HZ, device=device)
    tokenizers_of = {name: make_tokenizers(folder, name) for name in ("large", "base")}
    codec = transformers.EncodecModel.from_pretrained(folder / "encodec").eval().to(device)

    def encode():
        return codec.encode(clip_24k, bandwidth=6.0).audio_codes

    for name, tokenizers in tokenizers_of.items():
        whole = transformers.HubertModel.from_pretrained(folder / name).eval().to(device)
        cut = transformers.HubertModel.from_pretrained(folder / name, num_hidden_layers=LAYER).eval().to(device)
        centroids = load_semantic(tokenizers / "semantic").centroids

        def hear(model=cut):
            return model(clip_16k).last_hidden_state

        def bare(hear=hear):
            for _ in range(songs):
                hear(), hear(), encode().cpu()

        def practice(model=whole, centroids=centroids):
            for _ in range(songs):
                for _ in range(2):
                    hidden = model(clip_16k, output_hidden_states=True).hidden_states[LAYER][0]
                    nearest_centroids(hidden.float().cpu().numpy(), centroids)
                encode().cpu()

        subjects[f"HuBERT-{name} to layer {LAYER}"] = hear, SONG_S
        if name == "large":
            subjects["HuBERT-large, all 24 layers"] = partial(hear, whole), SONG_S
            subjects["EnCodec encode"] = encode, SONG_S
        subjects[f"bare, {name}"] = bare, songs * SONG_S
        subjects[f"extractor, {name}"] = partial(extract, unit(folder, tokenizers, names)), songs * SONG_S
        subjects[f"common practice, {name}"] = practice, songs * SONG_S

    found: dict[str, list[float]] = {name: [] for name in subjects}
    with torch.inference_mode():
        for number in tqdm(range(rounds + 1), unit="round"):
            for name, (run, seconds) in subjects.items():
                started_s = time.perf_counter()
                run()
                if device == "cuda":
                    torch.cuda.synchronize()
                if number:  # the first round warms up
                    found[name].append(seconds / (time.perf_counter() - started_s))
    return {name: spread(values) for name, values in found.items()}


def resident_bytes(field: str) -> int:
    """VmRSS, what the process holds, or VmHWM, the most that it held."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{field}:")[1].split()[0])


def memory_worker(folder: Path, seconds: int) -> None:
    one = unit(folder, folder / "tokenizers_large", make_songs(folder / "long", 1, seconds))
    extract(one._replace(names=make_songs(folder / f"warm{seconds}", 1, 1), songs=folder / f"warm{seconds}"))
    Path("/proc/self/clear_refs").write_text("5")  # forgets the high-water mark, which loading the models set
    before = resident_bytes("VmRSS")
    extract(one._replace(songs=folder / "long"))
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
    memory = [["one song of", *(f"{seconds} s" for seconds in measured["song_bytes"])]]
    memory.append(["memory above the models'", *(f"{n / 1e9:.2f} GB" for n in measured["song_bytes"].values())])
    return "\n\n".join(map(markdown, (rows, ratios, memory)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of one song")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/tokenize.json"))
    parser.add_argument("--memory-worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_worker:
        folder, seconds = arguments.memory_worker
        memory_worker(Path(folder), int(seconds))
        return
    songs, rounds = (1, 1) if arguments.quick else (2 if arguments.device == "cpu" else 16, ROUNDS)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        measured = {"song_s": SONG_S, "songs": songs, "rates": rates(folder, arguments.device, songs, rounds)}
        measured["song_bytes"] = {}
        for seconds in tqdm(LENGTHS_S[: 1 if arguments.quick else None], desc="memory", unit="length"):
            command = [sys.executable, __file__, "--memory-worker", directory, str(seconds)]
            done = subprocess.run(command, env=os.environ, stdout=subprocess.PIPE, text=True, check=True)
            measured["song_bytes"][seconds] = json.loads(done.stdout.splitlines()[-1])
    document = {"machine": machine("torch", "transformers"), "device": arguments.device, "measured": measured}
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")
    print(table(measured))


if __name__ == "__main__":
    main()
