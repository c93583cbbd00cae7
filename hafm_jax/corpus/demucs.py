"""Demucs: Hybrid and Hybrid Transformer models, and bags of them, through the package demucs (PyTorch).

A model is one file, in one of the two forms that demucs publishes:

    SIGNATURE.safetensors   weights, with class and arguments as JSON in the header (on the Hugging Face Hub)
    SIGNATURE.th            the older checkpoint, a pickle. Only torch's weights-only unpickler reads it, and an empty
                            stand-in takes the place of each class of demucs that it names: nothing of it is run.

A bag is a folder of models with one NAME.yaml: the signatures of its models, and what each counts in each source.

Axes: K sources, S samples.
"""

from __future__ import annotations

import importlib
import json
import pickle
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from hafm_jax.common.download import check_sha256, find_weights
from hafm_jax.common.errors import InputError

INSTALL = 'install the extra: pip install "hafm_jax[separate]"'
MODEL_FORMS = ("*.safetensors", "*.th")
BAG_FORM = "*.yaml"
CLASSES = ("demucs.htdemucs.HTDemucs", "demucs.hdemucs.HDemucs", "demucs.demucs.Demucs")
# Numbers of numpy in the scores that a checkpoint reports; we do not read them.
IGNORED = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype")


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
        self._device = self._find_device(device)
        source = find_weights(_hub_id(weights), (*MODEL_FORMS, BAG_FORM))
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
        # No longer than it was trained with: the Transformer hears nothing beyond that.
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

    def _find_device(self, device: str | None) -> Any:
        has_cuda = self._torch.cuda.is_available()
        try:
            found = self._torch.device(device or ("cuda" if has_cuda else "cpu"))
        except RuntimeError as error:
            raise InputError(f"there is no device {device!r}; expected cpu, cuda or cuda:N") from error
        if found.type == "cuda" and not has_cuda:
            raise InputError(f"PyTorch finds no GPU for device {device!r}: use cpu, or a build of torch with CUDA")
        return found


def _import() -> Any:
    try:
        import demucs.hf  # noqa: F401  the first version that has it, 4.1, is also the first without torchaudio
        import torch
    except ImportError as error:
        raise InputError(f"Demucs models need torch and demucs 4.1 ({error}): {INSTALL}") from error
    return torch


def _hub_id(weights: str) -> str:
    """Where demucs publishes a model that it knows by name; anything else as it is."""
    from demucs.hf import DEFAULT_NAMESPACE, hf_repo_name
    from demucs.pretrained import REMOTE_ROOT

    is_name = weights in {path.stem for path in REMOTE_ROOT.glob(BAG_FORM)} and not Path(weights).exists()
    return f"{DEFAULT_NAMESPACE}/{hf_repo_name(weights)}" if is_name else weights


def _files(source: Path) -> tuple[Path | None, list[Path]]:
    """(a bag's description, its models in its order) of a folder, or the only model of a folder or file."""
    if source.is_file():
        return None, [source]
    bags = sorted(source.glob(BAG_FORM))
    models = sorted(path for form in MODEL_FORMS for path in source.glob(form))
    if not bags and len(models) == 1:
        return None, models
    if len(bags) != 1:
        names = ", ".join(path.name for path in (*bags, *models)) or "no such file"
        raise InputError(
            f"{source} holds {names}; expected one model ({', '.join(MODEL_FORMS)}), or a bag's models and one "
            f"{BAG_FORM}: give the path of one file, or remove the others"
        )
    ordered = []
    for signature in _read_description(bags[0])["models"]:
        found = [path for path in models if path.stem.split("-")[0] == signature]  # SIGNATURE-CHECKSUM.th too
        if len(found) != 1:
            raise InputError(
                f"{bags[0]} names the model {signature}, and {len(found)} files beside it are of that name; expected "
                f"one {signature}.safetensors or .th: copy the folder again, whole"
            )
        ordered += found
    return bags[0], ordered


def _read_description(path: Path) -> dict[str, Any]:
    import yaml  # comes with demucs

    try:
        document = yaml.safe_load(path.read_text())
        if not document["models"] or not all(isinstance(name, str) for name in document["models"]):
            raise ValueError("it names no models")
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise InputError(f"{path} describes no bag of models ({error}); expected models: [SIGNATURE, ...]") from error
    return document


def _bag(description: Path | None, files: list[Path]) -> Any:
    """The package's own bag of the models, of one as well as of several."""
    from demucs.apply import BagOfModels

    document = _read_description(description) if description else {}
    models = [_read_model(path) for path in files]
    try:
        weights = document.get("weights") and [[float(w) for w in of_sources] for of_sources in document["weights"]]
        return BagOfModels(models, weights, document.get("segment"))
    except (AssertionError, TypeError, ValueError) as error:
        raise InputError(
            f"{description}: models and weights do not fit together; expected models of the same sources, and for each "
            "a weight per source: copy the folder again, whole"
        ) from error


def _read_model(path: Path) -> Any:
    """The network of a file, in float32 on the CPU."""
    from demucs.states import load_model

    try:
        package = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
        class_name = package["klass"]
        if class_name not in CLASSES:
            raise InputError(f"{path} holds a {class_name}; expected one of {', '.join(CLASSES)}: use another model")
        if package["state"].get("__quantized"):
            raise InputError(
                f"{path} is quantised by DiffQ; expected plain weights: use the model that is not (mdx_extra in place "
                "of mdx_extra_q)"
            )
        module, _, name = class_name.rpartition(".")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # arguments that demucs no longer has, which it leaves out
            return load_model({**package, "klass": getattr(importlib.import_module(module), name)})
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, AssertionError, RuntimeError) as error:
        raise _no_model(path, error) from error


def _no_model(path: Path, error: Exception) -> InputError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return InputError(
        f"{path} cannot be loaded as a Demucs model ({reason}); expected a .safetensors or .th file of the form that "
        "demucs publishes: get it again"
    )


def _read_safetensors(path: Path) -> dict[str, Any]:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}
    except safetensors.SafetensorError as error:
        raise _no_model(path, error) from error
    if "structure" in facts:  # of what a quantised state is made up
        state["__quantized"] = True
    args, kwargs = (json.loads(facts[name], object_hook=_fraction) for name in ("args", "kwargs"))
    return {"klass": facts["klass"], "args": args, "kwargs": kwargs, "state": state}


def _fraction(value: dict[str, Any]) -> Any:
    if value.get("_type") == "fraction":
        return Fraction(value["numerator"], value["denominator"])
    return value


class _StandIn:
    """What a name in a pickle stands for: takes anything and does nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _read_pickle(path: Path) -> dict[str, Any]:
    import torch

    stand_ins = {name: type(name, (_StandIn,), {}) for name in (*CLASSES, *IGNORED)}
    try:
        with torch.serialization.safe_globals([Fraction, *((kind, name) for name, kind in stand_ins.items())]):
            package = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _no_model(path, error) from error
    return {**{name: package[name] for name in ("args", "kwargs", "state")}, "klass": package["klass"].__name__}
