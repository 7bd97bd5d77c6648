# Second stage on the embedded scenes: the small language model of the captions is frozen, and writes about what the
# Q-Former of the first stage reads: python tools/train.py configs/blip2/blip2_coswin-micro_opt-micro_1xb64-6e_large-digits.py
_base_ = [
    '../_base_/models/blip2_coswin-micro.py',
    '../_base_/datasets/large_digit_captions.py',
    '../_base_/schedules/meter_micro.py',
    '../_base_/default_runtime.py',
]
from florence_mm.config.load import load_config

_opt = load_config('configs/_base_/models/opt-micro.py').model
