"""Speed of the work that turns music into tokens, at full size with random weights: seconds of audio a second.

    python -m benchmarks.offline separate [--quick] [--out benchmarks/results/separate.json]
    python -m benchmarks.offline tokenize [--quick] [--device cuda] [--out benchmarks/results/tokenize.json]

All subjects take turns, round by round: machines drift, ratios hold.

separate: a mixture of 30 s. `HTDemucs` is the published htdemucs through hafm_jax.corpus.separators, `demucs` the same
network through the package's own apply_model, without its random shifts and with equal segments. `MDX-Net`, through
hafm_jax.corpus.separators and ONNX Runtime, has the size of KUIELab-MDX-Net's network for vocals: 7.4 M parameters, an
ONNX of 29.7 MB.

tokenize: songs of 30 s, a vocal and an instrumental each. `bare` calls transformers' models one after another, the
least that an extractor has to do: HuBERT for both stems, layers above the ninth cut off, EnCodec at 6 kbps for the
instrumental; on a GPU 8 songs at once. `extractor` is hafm_jax.corpus.extraction: read files, resample, add noise,
k-means, codes, write a shard. `common practice` is the way of fairseq-style scripts: each file alone, all layers of
HuBERT, all hidden states kept, then the same k-means and EnCodec. HuBERT has the extractor's dtype and torch the
extractor's number of threads in all three. Memory is of a process of its own for each row (Linux): its high-water mark
above the memory that it holds once the models are loaded and have run on a second of audio.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from demucs.apply import apply_model
from demucs.htdemucs import HTDemucs
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

from benchmarks._common import begin_result, in_a_process, make_parser, markdown, spread
from hafm_jax.audio.files import write_audio
from hafm_jax.common.errors import run_command
from hafm_jax.corpus import extraction
from hafm_jax.corpus.screening import Limits
from hafm_jax.corpus.separators import OVERLAP, load_separator
from hafm_jax.corpus.shard import ShardTask
from hafm_jax.streams import CODEC_SAMPLE_RATE_HZ, SEMANTIC_SAMPLE_RATE_HZ
from hafm_jax.tokenizers.codecs import CONFIG_FILE
from hafm_jax.tokenizers.folder import TORCH_THREADS, load_tokenizers
from hafm_jax.tokenizers.semantic import VOCAL_NOISE_SIGMA, load_semantic, nearest_centroids, save_semantic

ROUNDS = 3


class Subject(NamedTuple):
    run: Callable[[], object]
    audio_s: float  # audio that one run processes
    prepare: Callable[[], object] = lambda: None  # before the clock starts


def rates(subjects: Mapping[str, Subject], rounds: int) -> dict[str, dict[str, float]]:
    """Subject -> seconds of audio a second, after one round to warm up."""
    found: dict[str, list[float]] = {name: [] for name in subjects}
    with torch.inference_mode():
        for number in tqdm(range(rounds + 1), unit="round"):
            for name, subject in subjects.items():
                subject.prepare()
                started_s = time.perf_counter()
                subject.run()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                if number:
                    found[name].append(subject.audio_s / (time.perf_counter() - started_s))
    return {name: spread(values) for name, values in found.items()}


def rate_table(found: Mapping[str, Mapping[str, float]]) -> str:
    rows = [[name, f"{r['median']:.2f}", f"{r['low']:.2f}-{r['high']:.2f}"] for name, r in found.items()]
    return markdown([["", "seconds of audio a second", "low-high"], *rows])


# ---------------------------------------------------------------------------------------------------------- separate

SOURCES = ["drums", "bass", "other", "vocals"]
SEGMENT = {"_type": "fraction", "numerator": 39, "denominator": 5}
MIXTURE_S = 30
# KUIELab's configuration of ConvTDFNet for vocals: 11 blocks, 3 convolutions in each, 32 channels more at each halving.
BINS, FRAMES, N_FFT, CHANNELS, HALVINGS, CONVOLUTIONS, BOTTLENECK = 2048, 256, 6144, 32, 5, 3, 8


def write_htdemucs(path: Path) -> HTDemucs:
    """A model of the published sizes, in the format in which the package publishes it."""
    torch.manual_seed(0)
    model = HTDemucs(SOURCES, bottom_channels=512, segment=Fraction(39, 5)).eval()
    args, kwargs = model._init_args_kwargs
    facts = {
        "klass": "demucs.htdemucs.HTDemucs",
        "args": json.dumps(args),
        "kwargs": json.dumps({**kwargs, "segment": SEGMENT}),
    }
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path, facts)
    return model


def with_norm(layer: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.ReLU())


class Block(nn.Module):
    """Convolutions over time and frequency, then two dense layers along the frequencies of each frame."""

    def __init__(self, channels: int, bins: int) -> None:
        super().__init__()
        self.convolve = nn.Sequential(
            *(with_norm(nn.Conv2d(channels, channels, 3, padding=1), channels) for _ in range(CONVOLUTIONS))
        )
        self.mix = nn.Sequential(
            with_norm(nn.Linear(bins, bins // BOTTLENECK, bias=False), channels),
            with_norm(nn.Linear(bins // BOTTLENECK, bins, bias=False), channels),
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        values = self.convolve(values)
        return values + self.mix(values)


class MdxNet(nn.Module):
    """A U-Net over [B, 4, F, T]: each level halves both axes, and multiplies its way up by its way down."""

    def __init__(self) -> None:
        super().__init__()
        levels = [(CHANNELS * (n + 1), BINS >> n) for n in range(HALVINGS + 1)]
        steps = [(wide, wide + CHANNELS) for wide, _ in levels[:-1]]
        self.first = with_norm(nn.Conv2d(4, CHANNELS, 1), CHANNELS)
        self.down = nn.ModuleList(Block(*level) for level in levels[:-1])
        self.halve = nn.ModuleList(with_norm(nn.Conv2d(few, many, 2, 2), many) for few, many in steps)
        self.middle = Block(*levels[-1])
        self.twice = nn.ModuleList(with_norm(nn.ConvTranspose2d(many, few, 2, 2), few) for few, many in steps[::-1])
        self.up = nn.ModuleList(Block(*level) for level in levels[-2::-1])
        self.last = nn.Conv2d(CHANNELS, 4, 1)

    def forward(self, spectrum: torch.Tensor) -> torch.Tensor:
        values = self.first(spectrum).transpose(2, 3)
        kept = []
        for block, halve in zip(self.down, self.halve, strict=True):
            kept.append(block(values))
            values = halve(kept[-1])
        values = self.middle(values)
        for block, twice in zip(self.up, self.twice, strict=True):
            values = block(twice(values) * kept.pop())
        return self.last(values.transpose(2, 3))


def write_mdx(path: Path) -> None:
    torch.manual_seed(0)
    spectrum = torch.zeros(1, 4, BINS, FRAMES)
    names = {"input_names": ["input"], "output_names": ["output"]}
    torch.onnx.export(MdxNet().eval(), (spectrum,), path, dynamo=False, **names)
    path.with_suffix(".json").write_text(json.dumps({"n_fft": N_FFT}))


def separate(quick: bool) -> tuple[dict[str, Any], str]:
    """The result and its table."""
    mixture_s, rounds = (8, 1) if quick else (MIXTURE_S, ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        paths = {"demucs": Path(folder, "0123abcd.safetensors"), "mdx": Path(folder, "vocals.onnx")}
        model = write_htdemucs(paths["demucs"])
        write_mdx(paths["mdx"])
        demucs, mdx = (load_separator(kind, str(path), device="cpu") for kind, path in paths.items())
    mixture = np.random.default_rng(0).normal(0, 0.1, (2, mixture_s * demucs.sample_rate_hz)).astype(np.float32)
    batch = torch.from_numpy(mixture)[None]
    peer = partial(apply_model, model, batch, shifts=0, split=True, overlap=OVERLAP, device="cpu")
    runs = {"HTDemucs": partial(demucs.separate, mixture), "demucs": peer, "MDX-Net": partial(mdx.separate, mixture)}
    found = rates({name: Subject(run, mixture_s) for name, run in runs.items()}, rounds)
    return {"mixture_s": mixture_s, "audio_s_per_s": found}, rate_table(found)


# ---------------------------------------------------------------------------------------------------------- tokenize

LAYER = 9
SONG_S = 30
SHORT_S = 10
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


def make_songs(folder: Path, number: int, seconds: float) -> Path:
    """A songs folder with `number` training songs of noise."""
    for i in range(number):
        song = folder / "train" / f"song{i}"
        song.mkdir(parents=True)
        rng = np.random.default_rng(i)
        for stem in ("vocals", "instrumental"):
            noise = 0.1 * rng.standard_normal(int(seconds * CODEC_SAMPLE_RATE_HZ), np.float32)
            write_audio(song / f"{stem}.wav", noise, CODEC_SAMPLE_RATE_HZ)
    return folder


def plan_shard(songs: Path, tokenizers: Path) -> ShardTask:
    """The extraction of all songs into one shard."""
    how = {"noise_sigma": VOCAL_NOISE_SIGMA, "seed": 0, "max_s": Limits().max_s, "num_shards": 1}
    (task,) = extraction.plan_tasks(songs, tokenizers, songs / "tokens", ["train"], **how)
    return task


def extract(task: ShardTask) -> None:
    task.done_file.unlink(missing_ok=True)
    task.shard.parent.mkdir(parents=True, exist_ok=True)
    extraction.extract_shard(task)


def tokenize_subjects(folder: Path, device: str, songs: int) -> dict[str, Subject]:
    torch.set_num_threads(TORCH_THREADS)
    subjects: dict[str, Subject] = {}
    songs_folder = make_songs(folder / "songs", songs, SONG_S)
    dtype, batch = (torch.float16, min(8, songs)) if device == "cuda" else (torch.float32, 1)

    def noise(*shape: int) -> torch.Tensor:
        return 0.1 * torch.randn(*shape, device=device)

    def clips(number: int, seconds: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The inputs of HuBERT and of EnCodec."""
        semantic = noise(number, seconds * SEMANTIC_SAMPLE_RATE_HZ + 80).to(dtype)
        return semantic, noise(number, 1, seconds * CODEC_SAMPLE_RATE_HZ)

    tokenizers_of = {name: make_tokenizers(folder, name) for name in ("large", "base")}
    codec = transformers.EncodecModel.from_pretrained(folder / "encodec").eval().to(device)
    one_16k, one_24k = clips(1, SONG_S)
    short_16k, short_24k = clips(1, SHORT_S)
    some_16k, some_24k = clips(batch, SONG_S)

    def encode(audio):
        return codec.encode(audio, bandwidth=6.0).audio_codes

    def features(model, audio):
        return model(audio).last_hidden_state

    def bare(model):
        for _ in range(songs // batch):
            features(model, some_16k), features(model, some_16k), encode(some_24k).cpu()

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
        subjects[f"HuBERT-{name} to layer {LAYER}"] = Subject(partial(features, cut, one_16k), SONG_S)
        if name == "large":
            short = f"clips of {SHORT_S} s"
            subjects[f"HuBERT-large to layer {LAYER}, {short}"] = Subject(partial(features, cut, short_16k), SHORT_S)
            subjects["HuBERT-large, all 24 layers"] = Subject(partial(features, whole, one_16k), SONG_S)
            subjects["EnCodec encode"] = Subject(partial(encode, one_24k), SONG_S)
            subjects[f"EnCodec encode, {short}"] = Subject(partial(encode, short_24k), SHORT_S)
        subjects[f"bare, {name}"] = Subject(partial(bare, cut), songs * SONG_S)
        # A process keeps one pair of tokenizers, and two take turns here.
        load = partial(load_tokenizers, tokenizers, None)
        run = partial(extract, plan_shard(songs_folder, tokenizers))
        subjects[f"extractor, {name}"] = Subject(run, songs * SONG_S, load)
        subjects[f"common practice, {name}"] = Subject(partial(practice, whole, centroids), songs * SONG_S)
    return subjects


def resident_bytes(field: str) -> int:
    """The memory of this process: VmRSS is its present size, VmHWM its high-water mark."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{field}:")[1].split()[0])


def memory_above_models(folder: Path, number: int, seconds: int) -> int:
    tokenizers = folder / "tokenizers_large"
    task = plan_shard(make_songs(folder / f"{number}x{seconds}", number, seconds), tokenizers)
    extract(plan_shard(make_songs(folder / f"{number}x{seconds}-warm", 1, 1), tokenizers))
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark, which loading the models set
    before = resident_bytes("VmRSS")
    extract(task)
    return resident_bytes("VmHWM") - before


def tokenize(quick: bool, device: str) -> tuple[dict[str, Any], str]:
    """The result and its tables."""
    songs, rounds = (1, 1) if quick else (2 if device == "cpu" else 16, ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        found = rates(tokenize_subjects(Path(folder), device, songs), rounds)
        memory = {}
        for number, seconds in tqdm(MEMORY[: 1 if quick else None], desc="memory", unit="row"):
            row = f"{number} {'song' if number == 1 else 'songs'} of {seconds} s"
            memory[row] = in_a_process(memory_above_models, Path(folder), number, seconds)
    ratios = [["extractor against", "large", "base"]]
    for other in ("bare", "common practice"):
        medians = [[found[f"{kind}, {name}"]["median"] for kind in ("extractor", other)] for name in ("large", "base")]
        ratios.append([other, *(f"{ours / theirs:.2f}" for ours, theirs in medians)])
    above = [["", *memory], ["memory above the models'", *(f"{n / 1e9:.2f} GB" for n in memory.values())]]
    measured = {"song_s": SONG_S, "songs": songs, "rates": found, "bytes_above_models": memory}
    return {"device": device, "measured": measured}, "\n\n".join([rate_table(found), markdown(ratios), markdown(above)])


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("work", choices=("separate", "tokenize"))
    parser.add_argument("--quick", action="store_true", help="one round of 8 s, or of one song")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="of tokenize (default: %(default)s)"
    )
    arguments = parser.parse_args()
    write = begin_result(arguments.out, "torch", "transformers", "demucs", "onnxruntime")
    result, table = (
        separate(arguments.quick) if arguments.work == "separate" else tokenize(arguments.quick, arguments.device)
    )
    write(result)
    print(table)


if __name__ == "__main__":
    run_command(main)
