"""Small HuBERT and EnCodec models of the real classes with random weights, saved as the published ones are."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra hafm_jax[torch]")
transformers = pytest.importorskip("transformers", reason="needs the extra hafm_jax[torch]")
torch.set_num_threads(1)
HUBERT = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
ENCODEC = {"num_filters": 4, "hidden_size": 16, "num_lstm_layers": 1, "target_bandwidths": [1.5, 3.0, 6.0]}


@pytest.fixture(scope="module")
def hubert_folder(tmp_path_factory):
    """Without a preprocessor config: audio goes in as it is."""
    folder = tmp_path_factory.mktemp("hubert")
    torch.manual_seed(0)
    transformers.HubertModel(transformers.HubertConfig(**HUBERT)).save_pretrained(folder)
    return folder


def encodec_model(**config):
    torch.manual_seed(2)
    model = transformers.EncodecModel(transformers.EncodecConfig(**config)).eval()
    with torch.no_grad():
        # Fresh weights let biases drown the sound, so that rounding would decide between codes; fresh codebooks are
        # zero, and all ids the same.
        for name, parameter in model.named_parameters():
            if ".conv." in name:
                parameter.mul_(0 if name.endswith("bias") else 1.8 if name.endswith("original0") else 1)
        latents = model.encoder(torch.tensor(noise(320 * 1024, seed=9))[None, None])[0].T  # [1024, D]
        for depth, layer in enumerate(model.quantizer.layers):
            layer.codebook.embed.copy_(latents if depth == 0 else torch.randn_like(latents) * latents.std(dim=0) / 2)
    return model


@pytest.fixture(scope="module")
def encodec_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encodec")
    encodec_model(**ENCODEC).save_pretrained(folder)
    return folder


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.02, 0.1, num_samples).astype(np.float32)
