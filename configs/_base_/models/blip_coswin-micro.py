# BLIP on the image tower of the embedded scenes of large digits (64 pixels); its text model is drawn anew
towers = 'work_dirs/unicl_coswin-micro_2xb32-5e_large-digits/epoch_5.pth'
model = dict(
    type='florence_mm.BLIP',
    data_preprocessor=dict(type='florence_mm.ImageTextDataPreprocessor'),
    image_encoder=dict(
        type='florence_mm.CoSwin',
        arch='micro',
        img_size=32,  # of the pretraining: the size of the windows' bias tables
        patch_size=4,
        out_indices=(2,),
        drop_path_rate=0.0,
        init_cfg=dict(type='florence_mm.Pretrained', checkpoint=towers, prefix='image_encoder.'),
    ),
    image_pool='mean',
    tokenizer=dict(type='florence_mm.MaskedCLIPTokenizer', vocab_size=4096),
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
