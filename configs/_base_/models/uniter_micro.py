# A small UNITER on regions whose features are pooled from the tower of the embedded scenes of large digits
model = dict(
    type='florence_mm.UNITER',
    tokenizer=dict(type='florence_mm.MaskedCLIPTokenizer', vocab_size=4096),
    feature_dims=128,
    text=dict(
        hidden_size=96,
        num_layers=4,
        num_heads=4,
        mlp_ratio=2.0,
        drop_rate=0.0,
        attn_drop_rate=0.0,
        max_positions=32,
        init_std=96**-0.5,
    ),
    max_text_len=32,
)
