# CoSwin-T and CLIP's 512-wide text transformer, the sizes of UniCL's tiny and base models
model = dict(
    type='florence_mm.UniCL',
    data_preprocessor=dict(type='florence_mm.ImageTextDataPreprocessor'),
    image_encoder=dict(type='florence_mm.CoSwin', arch='tiny', drop_path_rate=0.2),
    text_encoder=dict(type='florence_mm.CLIPTextTower', arch='base'),
    tokenizer=dict(type='florence_mm.CLIPTokenizer'),
    embed_dims=512,
)
