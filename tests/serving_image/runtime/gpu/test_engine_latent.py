"""A model with latent attention on the GPU's runtime, against Transformers."""

from __future__ import annotations

from pathlib import Path

from transformers import DeepseekV2Config

from tests.serving_image.generation import greedy_request, run_to_end, tokens_by_request
from tests.serving_image.models.families.case import transformers_case
from tests.serving_image.runtime.gpu.engine import assert_idle, start_on_gpu

CASE = transformers_case(
    "latent",
    DeepseekV2Config,
    hidden_size=32,
    intermediate_size=32,
    num_hidden_layers=1,
    first_k_dense_replace=1,
    n_routed_experts=2,
    num_experts_per_tok=1,
    topk_method="greedy",
    num_attention_heads=2,
    q_lora_rank=None,
    kv_lora_rank=16,
    qk_nope_head_dim=16,
    qk_rope_head_dim=16,
    v_head_dim=16,
    max_position_embeddings=96,
)


def test_latent_rows_are_cached_for_chunks_and_decodes(tmp_path: Path) -> None:
    reference = CASE.write(tmp_path)
    core = start_on_gpu(tmp_path, max_num_batched_tokens=16)
    prompts = {"long": [7 * index % 199 for index in range(24)], "one": [5]}
    for name, prompt in prompts.items():
        core.add(greedy_request(name, prompt, 4))
    tokens = tokens_by_request(run_to_end(core)[0])
    for name, prompt in prompts.items():
        for token in tokens[name]:
            assert int(reference(prompt)[-1].argmax()) == token
            prompt.append(token)
    assert_idle(core)
