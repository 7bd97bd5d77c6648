# GIT on the image tower of the embedded scenes of large digits (64 pixels); its text layers start from random weights
_base_ = './large-digits_coswin-micro.py'
model = dict(
    type='florence_mm.GIT',
    text=dict(
        hidden_size=96,
        num_layers=3,
        num_heads=4,
        mlp_ratio=2.0,
        max_positions=40,
        drop_rate=0.0,
        attn_drop_rate=0.0,
        init_std=96**-0.5,
    ),
)
