# Flamingo of the size of the paper's 3B: a language model of 24 layers of 2048 channels with a block before each, here
# OPT-1.3B, and CLIP's ViT-L/14. The tokenizer is that of `facebook/opt-1.3b` on the Hugging Face hub; names that begin
# with ./ are never looked for there
model = dict(
    type='florence_mm.FlorenceFlamingo',
    data_preprocessor=dict(
        type='florence_mm.ImageTextDataPreprocessor',
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
    ),
    image_encoder=dict(
        type='florence_mm.CLIPVisionTower',
        arch='large-14',
        img_size=224,
        out_type='raw',
        init_cfg=dict(type='florence_mm.Pretrained', checkpoint='data/clip/ViT-L-14.pt', prefix='image_encoder.'),
    ),
    language_model=dict(
        type='florence_mm.TransformersLanguageModel',
        pretrained='./data/opt-1.3b',
        config=dict(
            model_type='opt',
            vocab_size=50272,
            hidden_size=2048,
            word_embed_proj_dim=2048,
            num_hidden_layers=24,
            num_attention_heads=32,
            ffn_dim=8192,
            max_position_embeddings=2048,
            dropout=0.0,
        ),
    ),
    tokenizer=dict(type='florence_mm.LanguageModelTokenizer', pretrained='./data/opt-1.3b'),
    resampler=dict(num_layers=6, num_latents=64, num_heads=16, num_frames=8),
    every=1,
    num_heads=16,
    heads=dict(
        caption=dict(
            type='florence_mm.DocumentHead', weights=dict(interleaved=1.0, pairs=0.2), num_beams=3, max_length=20
        )
    ),
)
# under --smoke all is small; bf16 is slow on CPUs
smoke = dict(
    optim_wrapper=dict(type='mmengine.OptimWrapper'),
    model=dict(
        image_encoder=dict(arch=dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, patch_size=32)),
        language_model=dict(
            config=dict(
                _delete_=True,
                model_type='opt',
                vocab_size=300,
                hidden_size=48,
                word_embed_proj_dim=48,
                num_hidden_layers=4,
                num_attention_heads=4,
                ffn_dim=96,
                max_position_embeddings=300,
            )
        ),
        resampler=dict(num_layers=1),
    ),
)
