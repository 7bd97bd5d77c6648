# BLIP-2's first stage on the image tower of the embedded scenes of large digits (64 pixels), which is frozen; the
# Q-Former starts from random weights. The tower is small, and checkpoints hold it
_base_ = './large-digits_coswin-micro.py'
model = dict(
    type='florence_mm.BLIP2',
    num_queries=4,  # for the 16 tokens of a picture, as published 32 for 257, so that they have to choose
    keep_frozen=True,
    text=dict(
        hidden_size=96,
        num_layers=4,
        num_heads=4,
        mlp_ratio=2.0,
        max_positions=40,
        drop_rate=0.0,
        attn_drop_rate=0.0,
        init_std=96**-0.5,
    ),
)
