# CLIP with ViT-B/32, of OpenAI's settings (open_clip's other weights need act='gelu' in both towers)
model = dict(
    type='florence_mm.UniCL',
    # CLIP's mean and standard deviation of pixels, times 255
    data_preprocessor=dict(
        type='florence_mm.ImageTextDataPreprocessor',
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
    ),
    image_encoder=dict(type='florence_mm.CLIPVisionTower', arch='base-32'),
    text_encoder=dict(type='florence_mm.CLIPTextTower', arch='base', norm_eps=1e-5),
    tokenizer=dict(type='florence_mm.CLIPTokenizer'),
    embed_dims=512,
    logit_scale_init=2.6593,  # ln(1 / 0.07)
)
# under --smoke all is small
smoke = dict(
    model=dict(
        image_encoder=dict(arch=dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, patch_size=32)),
        text_encoder=dict(arch=dict(_delete_=True, embed_dims=64, num_layers=2, num_heads=2)),
    ),
)
