# The Q-Former of BLIP-2's second stage before OPT-2.7B, whose texts end with a line break. OPT's folder is that of
# `facebook/opt-2.7b` on the Hugging Face hub
_base_ = './blip2_vit-g-14.py'
model = dict(
    type='florence_mm.BLIP2Writer',
    language_model=dict(
        type='florence_mm.TransformersLanguageModel',
        pretrained='./data/opt-2.7b',
        dtype='float16',
        config=dict(
            model_type='opt',
            vocab_size=50272,
            hidden_size=2560,
            word_embed_proj_dim=2560,
            num_hidden_layers=32,
            num_attention_heads=32,
            ffn_dim=10240,
            max_position_embeddings=2048,
        ),
    ),
    tokenizer=dict(_delete_=True, type='florence_mm.LanguageModelTokenizer', pretrained='./data/opt-2.7b', end='\n'),
)
smoke = dict(
    model=dict(
        language_model=dict(
            dtype='float32',
            config=dict(
                vocab_size=300,
                hidden_size=32,
                word_embed_proj_dim=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                ffn_dim=32,
            ),
        )
    ),
)
