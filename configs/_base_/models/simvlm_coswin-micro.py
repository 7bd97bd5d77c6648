# SimVLM on the image tower of the embedded scenes of large digits (64 pixels); encoder and decoder start from random
# weights
_base_ = './large-digits_coswin-micro.py'
model = dict(
    type='florence_mm.SimVLM',
    text=dict(hidden_size=96, num_layers=2, num_heads=4, mlp_ratio=2.0, init_std=96**-0.5),
    map_size=(4, 4),
    max_text_len=40,
)
