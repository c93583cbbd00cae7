"""The torch models that benchmarks compare with: transformers' own, at the sizes of our stages."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SIZE = "base"
CHECK_TOKENS = 64  # sequence on which Qwen3 with a bias is checked to be causal


def torch_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


class MusicGen:
    """transformers' MusicgenForCausalLM at a stage's size, `context` tokens of `rows` rows in its cache: eager with its
    growing cache, or compiled with its static one, which has room for `steps` more."""

    def __init__(self, stage: str, rows: int, guided: bool, context: int, steps: int, dtype: str, compiled: bool):
        import torch
        from transformers import MusicgenForCausalLM
        from transformers.cache_utils import DynamicCache, EncoderDecoderCache, StaticCache
        from transformers.generation.logits_process import (
            ClassifierFreeGuidanceLogitsProcessor,
            TemperatureLogitsWarper,
            TopKLogitsWarper,
        )
        from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

        from hafm_jax.model.config import StageConfig
        from hafm_jax.model.sampling import Sampling

        ours = StageConfig.of_size(stage, SIZE, window_cells=1)
        target = ours.stage.target
        config = MusicgenDecoderConfig(
            hidden_size=ours.d_model,
            num_hidden_layers=ours.num_layers,
            num_attention_heads=ours.num_heads,
            ffn_dim=ours.ffn_dim * 3 // 2,  # two matrices for our three
            vocab_size=target.vocabulary,
            num_codebooks=target.codebooks,
            max_position_embeddings=8192,
            pad_token_id=None,
            bos_token_id=None,
        )
        torch.manual_seed(0)
        self.torch = torch
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = MusicgenForCausalLM(config).to(self.device, getattr(torch, dtype)).eval()
        self.rows = rows
        self.codebooks = target.codebooks
        self.context = context
        filled = StaticCache(config, context + steps) if compiled else DynamicCache(config=config)
        shape = (self.rows, ours.num_heads, self.context, ours.head_dim)
        for layer in range(ours.num_layers):
            keys, values = (torch.randn(shape, dtype=self.model.dtype, device=self.device) for _ in range(2))
            filled.update(keys, values, layer)
        self.cache = EncoderDecoderCache(filled, DynamicCache(config=config))
        self.compiled = compiled
        self.forward = torch.compile(self.model) if compiled else self.model
        sampling = Sampling()
        self.processors = [TemperatureLogitsWarper(sampling.temperature), TopKLogitsWarper(sampling.top_k)]
        if guided:
            self.processors.insert(0, ClassifierFreeGuidanceLogitsProcessor(sampling.guidance_scale))
        self.guided = guided
        started_s = self.seconds()
        self.run(2)
        compile_s = self.seconds() - started_s
        self.run(8)
        layer = self.model.model.decoder.layers[0]
        parts = [layer.self_attn, layer.fc1, layer.fc2]
        self.facts = {
            "compile_s": compile_s,
            "context": self.context,
            "layer_parameters": sum(p.numel() for part in parts for p in part.parameters()),
            "torch_threads": torch.get_num_threads(),
            "torch_device": str(self.device),
        }

    def seconds(self) -> float:
        """The clock once the device has finished its work."""
        if self.device.type == "cuda":
            self.torch.cuda.synchronize()
        return time.perf_counter()

    def run(self, steps: int) -> tuple[float, int]:
        torch = self.torch
        tokens = torch.zeros((self.rows * self.codebooks, 1), dtype=torch.long, device=self.device)
        started_s = self.seconds()
        with torch.inference_mode():
            for _ in range(steps):
                out = self.forward(input_ids=tokens, past_key_values=self.cache, use_cache=True)
                scores = out.logits[:, -1].float()
                for process in self.processors:
                    scores = process(tokens[: len(tokens) // 2] if self.guided else tokens, scores)
                tokens = torch.multinomial(torch.softmax(scores, dim=-1), 1)
                if self.guided:
                    tokens = torch.cat([tokens, tokens])
        seconds = self.seconds() - started_s
        assert self.cache.get_seq_length() == self.context + steps
        if self.compiled:
            for layer in self.cache.self_attention_cache.layers:
                layer.cumulative_length.fill_(self.context)
        else:
            self.cache.crop(-steps)
        return seconds, steps


def qwen3_step(
    stage: str, window_cells: int, dtype: str, batch: int, bias: bool, again: bool
) -> tuple[Callable[[], float], dict[str, Any]]:
    """(a training step of transformers' Qwen3 at a stage's size, which returns its loss; facts)."""
    import torch
    from transformers import Qwen3Config, Qwen3Model
    from transformers.models.qwen3 import modeling_qwen3
    from transformers.models.t5.modeling_t5 import T5Attention

    from configs.base import get_config
    from hafm_jax.model.config import StageConfig
    from hafm_jax.model.position import INDEX_BUCKETS, INDEX_MAX_DISTANCE

    ours = StageConfig.of_size(stage, SIZE, window_cells=window_cells)
    training = get_config()
    target = ours.stage.target
    num_tokens = ours.stage.num_tokens(window_cells)
    num_targets = window_cells * target.tokens_per_cell
    modeling_qwen3.apply_rotary_pos_emb = lambda q, k, *_: (q, k)
    torch.manual_seed(0)
    device = torch_device()

    class Stage(torch.nn.Module):
        def __init__(self):
            super().__init__()
            config = Qwen3Config(
                hidden_size=ours.d_model,
                num_hidden_layers=ours.num_layers,
                num_attention_heads=ours.num_heads,
                num_key_value_heads=ours.num_heads,
                head_dim=ours.head_dim,
                intermediate_size=ours.ffn_dim,
                hidden_act="gelu_pytorch_tanh",
                vocab_size=sum(s.codebooks * s.vocabulary for s in ours.stage.streams),
                use_cache=False,
                attn_implementation="sdpa",
            )
            self.body = Qwen3Model(config)
            heads = torch.randn(target.codebooks, ours.d_model, target.vocabulary)
            self.heads = torch.nn.Parameter(config.initializer_range * heads)
            self.table = torch.nn.Embedding(INDEX_BUCKETS, ours.num_heads)
            torch.nn.init.zeros_(self.table.weight)  # as in ours

        def mask(self, length: int) -> torch.Tensor | None:
            """The bias with the future masked, [1, heads, T, T]; None: causal attention without bias."""
            if not bias:
                return None
            # Of a query to the keys, starting with the last row's first.
            distance = torch.arange(length - 1, -length, -1, device=device)
            bucket = T5Attention._relative_position_bucket(-distance, False, INDEX_BUCKETS, INDEX_MAX_DISTANCE)
            falling = torch.where(distance < 0, torch.finfo(torch.float32).min, self.table(bucket).T.contiguous())
            return falling.unfold(1, length, 1).flip(1)[None]

        def hidden(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.body(tokens, attention_mask={"full_attention": self.mask(tokens.shape[1])}).last_hidden_state

        def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            """Cross-entropy of targets [B, F, K], which the last F * K tokens predict."""
            hidden = self.hidden(tokens)
            assert hidden.shape == (batch, num_tokens, ours.d_model)
            hidden = hidden[:, -num_targets:].reshape(*targets.shape, -1)
            logits = torch.einsum("bfkd,kdv->bfkv", hidden, self.heads)
            return torch.nn.functional.cross_entropy(logits.flatten(0, 2), targets.flatten())

    model = Stage().train().to(device)
    if again:
        model.body.activation_checkpointing_enable({"use_reentrant": False})
    frames = window_cells * target.frames_per_cell
    tokens = torch.randint(0, model.body.config.vocab_size, (batch, num_tokens), device=device)
    targets = torch.randint(0, target.vocabulary, (batch, frames, target.codebooks), device=device)

    with torch.no_grad():  # no token reads a later one, and the last one is read
        short = tokens[:1, :CHECK_TOKENS]
        changed = torch.cat([short[:, :-1], (short[:, -1:] + 1) % model.body.config.vocab_size], dim=1)
        difference = (model.hidden(short) - model.hidden(changed)).abs().amax(-1)[0]
        assert difference[:-1].max() < 1e-5 < difference[-1], "the peer is not causal"

    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": training.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        lr=training.learning_rate,
        betas=(training.beta1, training.beta2),
        fused=True,
    )
    layers = sum(p.numel() for p in model.body.layers.parameters())
    facts = {
        "layer_parameters": layers // ours.num_layers,
        "parameters": sum(p.numel() for p in model.parameters()),
        "torch_threads": torch.get_num_threads(),
    }

    def step() -> float:
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = model(tokens, targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
        if bias:
            facts["bias_gradient_norm"] = model.table.weight.grad.norm().item()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return loss.item()

    return step, facts
