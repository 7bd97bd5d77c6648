# Flamingo on the frozen image tower of the embedded scenes of large digits (64 pixels), and on a frozen language model
# of their captions (configs/flamingo/language-micro_1xb64-6e_large-digits.py)
_base_ = './large-digits_coswin-micro.py'
language = 'work_dirs/language-micro_1xb64-6e_large-digits/epoch_6.pth'
model = dict(
    type='florence_mm.FlorenceFlamingo',
    language_model=dict(
        type='florence_mm.StackLanguageModel',
        stack=dict(
            vocab_size=4097,
            hidden_size=96,
            num_layers=3,
            num_heads=4,
            mlp_ratio=2.0,
            max_positions=128,
            drop_rate=0.0,
            attn_drop_rate=0.0,
            init_std=96**-0.5,
        ),
        init_cfg=dict(type='florence_mm.Pretrained', checkpoint=language, prefix='language_model.'),
    ),
    resampler=dict(num_layers=2, num_latents=16, num_heads=4, head_dims=24),
    num_heads=4,
    head_dims=24,
    max_text_len=128,
    keep_frozen=True,  # a checkpoint needs no other file
)
