#!/usr/bin/env bash
# transformers 5.23.0 (torch 2.13.0, Python 3.11), GitForCausalLM: a call with past_key_values and without position_ids takes
# the length of the cache, which holds the image tokens too, as the position of the next word, so that it adds the wrong
# position embeddings. generate() gives position_ids itself and is right; nothing says that a caller must. With GIT-base's 197
# image tokens the fifth word gets the embedding of position 201 instead of 4.
# A small model with random weights, six words at once, and four and then two with the cache.
# Expected: equal logits of the last two words. Seen: without position_ids they differ by 1.9, with them by 5e-7.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install -q --target "$folder" transformers==5.23.0 torch==2.13.0 numpy >&2
cd "$folder"
PYTHONPATH=$folder "${PYTHON:-python3}" -W ignore - <<'PYTHON'
import torch
from transformers import GitConfig, GitForCausalLM

torch.manual_seed(0)
vision = dict(hidden_size=24, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8)
sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=600)
model = GitForCausalLM(GitConfig(vision_config=vision, max_position_embeddings=40, **sizes)).eval()
for parameter in model.parameters():
    if parameter.ndim > 1:
        torch.nn.init.normal_(parameter, std=0.1)
picture, ids = torch.randn(1, 3, 16, 16), torch.randint(1, 500, (1, 6))
with torch.no_grad():
    whole = model(input_ids=ids, pixel_values=picture).logits[:, -2:]
    differences = []
    for places in (None, torch.tensor([[4, 5]])):
        cache = model(input_ids=ids[:, :4], pixel_values=picture, use_cache=True).past_key_values
        last = model(input_ids=ids[:, 4:], past_key_values=cache, position_ids=places, use_cache=True).logits
        differences.append(float((last - whole).abs().max()))
print('without position_ids', differences[0], 'with them', differences[1])
assert differences[0] > 1e-2 and differences[1] < 1e-5, 'it is not so any more'
PYTHON
