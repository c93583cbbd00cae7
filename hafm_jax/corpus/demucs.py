"""Demucs: Hybrid and Hybrid Transformer models, and bags of them, through the package demucs (PyTorch).

A model is one file, SIGNATURE.safetensors, as demucs publishes it on the Hugging Face Hub: weights, with class and
arguments as JSON in the header. A bag is a folder of models with one NAME.yaml: the signatures of its models, and the
weight of each in each source. The older .th checkpoints are pickles, and are not read.

Axes: K sources, S samples.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from hafm_jax.common.download import check_sha256, find_weights
from hafm_jax.common.errors import InputError, first_line, install, needed_for
from hafm_jax.tokenizers.hub import find_device

INSTALL = f"install the extra: {install('separate')}"
MODEL_FORM, BAG_FORM = "*.safetensors", "*.yaml"
CLASSES = ("demucs.htdemucs.HTDemucs", "demucs.hdemucs.HDemucs", "demucs.demucs.Demucs")


class DemucsNetwork:
    """The vocals of a Demucs model or bag, a network of hafm_jax.corpus.separators.

    Random shifts in time, which the package averages over, are left out: equal segments give equal vocals. Of a bag,
    only models that count for the vocals are kept.
    """

    edge_samples = 0
    hop_samples = 1
    normalizes_song = True

    def __init__(self, weights: str, sha256: str | None = None, device: str | None = None) -> None:
        self._torch = _import()
        self._device = find_device(self._torch, device)
        source = find_weights(_hub_id(weights), (MODEL_FORM, BAG_FORM))
        description, files = _files(source)
        self.sha256 = check_sha256(sorted({*files, description} - {None}), sha256)
        bag = _bag(description, files)
        if "vocals" not in bag.sources or bag.audio_channels != 2:
            raise InputError(
                f"{source} separates {bag.audio_channels} channels into {', '.join(bag.sources)}; expected 2 channels "
                "and vocals: use another model"
            )
        self._vocals = bag.sources.index("vocals")
        shares = [of_sources[self._vocals] for of_sources in bag.weights]
        if sum(shares) <= 0:
            raise InputError(f"{description} gives the vocals of no model any weight; expected one above 0: correct it")
        self._models = [
            (model.to(self._device).eval(), share / sum(shares))
            for model, share in zip(bag.models, shares, strict=True)
            if share
        ]
        self.sample_rate_hz: int = bag.samplerate
        # No longer than in training: the Transformer attends to nothing beyond that.
        self.segment_samples = int(min(model.segment for model, _ in self._models) * self.sample_rate_hz)

    def vocals(self, segment: np.ndarray) -> np.ndarray:
        """Mixture float32 [2, segment_samples] -> vocals float32 [2, segment_samples]."""
        from demucs.apply import apply_model

        mixture = self._torch.from_numpy(segment)[None]
        with self._torch.inference_mode():
            parts = [
                share * apply_model(model, mixture, shifts=0, split=False, device=self._device)[0, self._vocals]
                for model, share in self._models  # apply_model -> [1, K, 2, S]
            ]
            return sum(parts).cpu().numpy()


def _import() -> Any:
    with needed_for("Demucs models need torch and demucs 4.1", INSTALL):
        import demucs.hf  # noqa: F401  the first version that has it, 4.1, is also the first without torchaudio
        import torch
    return torch


def _hub_id(weights: str) -> str:
    """The Hub id of a model that demucs publishes under this name; other sources as they are."""
    from demucs.hf import DEFAULT_NAMESPACE, hf_repo_name
    from demucs.pretrained import REMOTE_ROOT

    is_name = weights in {path.stem for path in REMOTE_ROOT.glob(BAG_FORM)} and not Path(weights).exists()
    return f"{DEFAULT_NAMESPACE}/{hf_repo_name(weights)}" if is_name else weights


def _files(source: Path) -> tuple[Path | None, list[Path]]:
    """(a bag's description, its models in its order) of a folder, or the only model of a folder or file."""
    if source.is_file():
        return None, [source]
    bags, models = sorted(source.glob(BAG_FORM)), sorted(source.glob(MODEL_FORM))
    if not bags and len(models) == 1:
        return None, models
    if len(bags) != 1:
        names = ", ".join(path.name for path in (*bags, *models)) or "no such file"
        raise InputError(
            f"{source} holds {names}; expected one model ({MODEL_FORM}), or a bag's models and one {BAG_FORM}: give "
            "the path of one file, or remove the others"
        )
    ordered = [source / f"{signature}.safetensors" for signature in _read_description(bags[0])["models"]]
    for path in ordered:
        if path not in models:
            raise InputError(f"{bags[0]} names {path.name}, which is not beside it; expected it: copy the whole folder")
    return bags[0], ordered


def _read_description(path: Path) -> dict[str, Any]:
    import yaml  # comes with demucs

    try:
        document = yaml.safe_load(path.read_bytes())
        if not document["models"] or not all(isinstance(name, str) for name in document["models"]):
            raise ValueError("it names no models")
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise InputError(f"{path} describes no bag of models ({error}); expected models: [SIGNATURE, ...]") from error
    return document


def _bag(description: Path | None, files: list[Path]) -> Any:
    """The package's own bag, of one model as well as of several."""
    from demucs.apply import BagOfModels

    document = _read_description(description) if description else {}
    models = [_read_model(path) for path in files]
    try:
        weights = document.get("weights") and [[float(w) for w in of_sources] for of_sources in document["weights"]]
        return BagOfModels(models, weights, document.get("segment"))
    except (AssertionError, TypeError, ValueError) as error:
        raise InputError(
            f"{description}: models and weights do not fit together; expected models of the same sources, and for each "
            "a weight per source: copy the whole folder again"
        ) from error


def _read_model(path: Path) -> Any:
    """The network of a file, in float32 on the CPU."""
    import safetensors
    from demucs.hf import load_safetensors_model

    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
        # The package imports whatever class a file names: check before it does.
        if facts["klass"] not in CLASSES:
            raise InputError(
                f"{path} holds a {facts['klass']}; expected one of {', '.join(CLASSES)}: use another model"
            )
        if "structure" in facts:  # of a quantised state, and it may name classes too
            raise InputError(
                f"{path} is quantised by DiffQ; expected plain weights: use the model that is not (mdx_extra in place "
                "of mdx_extra_q)"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of arguments that demucs no longer has, and leaves out
            return load_safetensors_model(path)
    except (
        safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError,
        RuntimeError,
    ) as error:  # fmt: skip
        raise InputError(
            f"{path} cannot be loaded as a Demucs model ({first_line(error)}); expected a .safetensors file as demucs "
            "publishes it: get it again"
        ) from error
