# BLIP-2's first stage with EVA's ViT-g/14, whose last block is left out, as in LAVIS. BERT's folder is that of
# `bert-base-uncased` on the Hugging Face hub; beginning with ./ it is never looked for there
model = dict(
    type='florence_mm.BLIP2',
    data_preprocessor=dict(
        type='florence_mm.ImageTextDataPreprocessor',
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
    ),
    image_encoder=dict(
        type='florence_mm.CLIPVisionTower',
        arch=dict(embed_dims=1408, num_layers=39, num_heads=16, patch_size=14, mlp_ratio=4.3637),
        img_size=224,
        out_type='raw',
        act='gelu',
        norm_eps=1e-6,
        pre_norm=False,
        patch_bias=True,
        post_norm=False,
        init_cfg=dict(type='florence_mm.Pretrained', checkpoint='data/eva/eva_vit_g.pth'),
    ),
    tokenizer=dict(
        type='florence_mm.BertTextTokenizer', pretrained='./data/bert-base-uncased', extra_tokens=['[DEC]']
    ),
    text=dict(vocab_size=30523, hidden_size=768, num_layers=12, num_heads=12),
)
# under --smoke all is small; bf16 is slow on CPUs
smoke = dict(
    optim_wrapper=dict(type='mmengine.OptimWrapper'),
    model=dict(
        image_encoder=dict(arch=dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, patch_size=32)),
        text=dict(hidden_size=32, num_layers=2, num_heads=2),
    ),
)
