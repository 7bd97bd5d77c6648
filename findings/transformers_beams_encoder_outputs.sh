#!/usr/bin/env bash
# transformers 5.23.0 (torch 2.13): `generate` with beams changes the encoder outputs that it is given. They are repeated
# for the beams inside the caller's object, so that states that are computed once serve one call alone.
# Expected: `encoder_outputs` of one text has one row after a call as before it, and each call returns one answer.
# Seen: after greedy search it has 1 row, after three beams 3, and the next call of the same arguments returns 3 answers.
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
from transformers import BartConfig, BartForConditionalGeneration

sides = {'layers': 1, 'attention_heads': 2, 'ffn_dim': 16}
sizes = {f'{part}_{key}': value for part in ('encoder', 'decoder') for key, value in sides.items()}
model = BartForConditionalGeneration(BartConfig(vocab_size=40, d_model=16, **sizes)).eval()
text = torch.tensor([[0, 5, 6, 7, 2]])
states = model.get_encoder()(text)
rows = []
for beams in (1, 3):
    model.generate(encoder_outputs=states, attention_mask=text.ne(1), num_beams=beams, max_new_tokens=4)
    rows.append(len(states.last_hidden_state))
again = len(model.generate(encoder_outputs=states, attention_mask=text.ne(1), num_beams=3, max_new_tokens=4))
print(rows[0], rows[1], again)
PYTHON
)
echo "rows after greedy search and after three beams, and answers of the next call: $seen"
[ "$seen" = '1 3 3' ] || { echo 'it is not so any more' >&2; exit 1; }
