# GIT with CLIP's ViT-B/16: the public GIT-base. BERT's vocabulary is that of `bert-base-uncased` on the Hugging Face
# hub; beginning with ./ it is never looked for there
model = dict(
    type='florence_mm.GIT',
    data_preprocessor=dict(
        type='florence_mm.ImageTextDataPreprocessor',
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
    ),
    image_encoder=dict(type='florence_mm.CLIPVisionTower', arch='base-16', img_size=224, out_type='raw'),
    text=dict(vocab_size=30522, hidden_size=768, num_layers=6, num_heads=12),
    tokenizer=dict(type='florence_mm.BertTextTokenizer', pretrained='./data/bert-base-uncased', keep='end'),
    heads=dict(
        caption=dict(
            type='florence_mm.FusionCaptionHead',
            tied=True,
            transform=False,
            num_beams=4,
            length_penalty=0.6,
            max_length=20,
            label_smoothing=0.1,
            smoothing_over='others',
        )
    ),
    max_text_len=40,
)
# under --smoke all is small; bf16 is slow on CPUs
smoke = dict(
    optim_wrapper=dict(type='mmengine.OptimWrapper'),
    model=dict(
        image_encoder=dict(arch=dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, patch_size=32)),
        text=dict(vocab_size=200, hidden_size=48, num_layers=1, num_heads=4),
    ),
)
