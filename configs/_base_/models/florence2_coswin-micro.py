# Florence-2 on the image tower of the embedded scenes of large digits (64 pixels); encoder and decoder are drawn anew
_base_ = './large-digits_coswin-micro.py'
model = dict(
    type='florence_mm.Florence2',
    # maps of 8 x 8 and 4 x 4: places of 8 pixels, which boxes need, and what is seen in 16
    image_encoder=dict(
        out_indices=(1, 2),
        init_cfg=dict(allow_missing=['norm1']),
    ),
    join_maps=True,
    smooth_places=True,
    tokenizer=dict(
        _delete_=True,
        type='florence_mm.LocationTokenizer',
        tokenizer=dict(type='florence_mm.MaskedCLIPTokenizer', vocab_size=2048),
        num_bins=32,
    ),
    text=dict(
        hidden_size=96,
        num_layers=2,
        num_heads=4,
        mlp_ratio=2.0,
        drop_rate=0.0,
        attn_drop_rate=0.0,
        max_positions=320,
        init_std=96**-0.5,
    ),
    max_map_size=16,
    max_text_len=64,
    max_prompt_len=48,
    heads=dict(tasks=dict(type='florence_mm.TaskHead', max_length=60)),
)
