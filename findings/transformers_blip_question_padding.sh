#!/usr/bin/env bash
# transformers 5.23.0 (torch 2.13): the decoder of BlipForQuestionAnswering attends to the padding of questions. Its
# cross-attention passes the mask on as `attention_mask`, which BlipTextSelfAttention replaces by its argument
# `encoder_attention_mask`, and that is None there. So an answer depends on how long other questions of the batch are.
# Expected: logits of an answer to a question differ by rounding (1e-6) if the question has four tokens of padding.
# Seen: they differ by 0.26, with weights of standard deviation 0.1.
# Run it with torch installed, and PYTHON naming an interpreter that has it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install -q --no-deps --target "$folder" transformers==5.23.0 >&2
cd "$folder"
seen=$(PYTHONPATH=$folder "${PYTHON:-python3}" -W ignore - <<'PYTHON'
import importlib.util

find = importlib.util.find_spec  # without torchvision, which may not fit torch
importlib.util.find_spec = lambda name, *rest: None if name.startswith('torchvision') else find(name, *rest)

import torch
from transformers import BlipConfig, BlipForQuestionAnswering

text = {'vocab_size': 40, 'hidden_size': 32, 'num_hidden_layers': 2, 'num_attention_heads': 4, 'intermediate_size': 64}
vision = {'hidden_size': 32, 'num_hidden_layers': 1, 'num_attention_heads': 4, 'image_size': 16, 'patch_size': 8}
config = BlipConfig(text_config={**text, 'encoder_hidden_size': 32}, vision_config={**vision, 'intermediate_size': 64})
model = BlipForQuestionAnswering(config).eval()
torch.manual_seed(0)
for parameter in model.parameters():
    if parameter.ndim > 1:
        torch.nn.init.normal_(parameter, std=0.1)
picture, answer = torch.randn(1, 3, 16, 16), torch.tensor([[38, 5, 6, 2]])
logits = []
for padding in (0, 4):
    question = torch.tensor([[39, 8, 7, 2] + [0] * padding])
    mask = torch.tensor([[1] * 4 + [0] * padding])
    with torch.no_grad():
        seen = model.vision_model(picture).last_hidden_state
        states = model.text_encoder(question, attention_mask=mask, encoder_hidden_states=seen).last_hidden_state
        masked = {'encoder_hidden_states': states, 'encoder_attention_mask': mask}
        logits.append(model.text_decoder(answer, **masked, return_dict=True).logits)
print(float((logits[0] - logits[1]).abs().max()))
PYTHON
)
echo "largest difference: $seen"
"${PYTHON:-python3}" -c "assert $seen > 1e-3, 'it is not so any more'"
