# A small OPT of the embedded captions, by transformers; it starts from random weights
language_model = dict(
    type='florence_mm.TransformersLanguageModel',
    config=dict(
        model_type='opt',
        vocab_size=4097,
        hidden_size=96,
        word_embed_proj_dim=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        ffn_dim=192,
        max_position_embeddings=80,
        dropout=0.0,
        init_std=0.1,
        bos_token_id=4094,
        eos_token_id=4095,
        pad_token_id=0,
    ),
)
