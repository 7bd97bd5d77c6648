# The image tower and the tokenizer of the embedded scenes of large digits (64 pixels), with which small models over
# images and texts begin; the tower descends from the quickstart's
towers = 'work_dirs/unicl_coswin-micro_2xb32-5e_large-digits/epoch_5.pth'
model = dict(
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
    tokenizer=dict(type='florence_mm.MaskedCLIPTokenizer', vocab_size=4096),
)
