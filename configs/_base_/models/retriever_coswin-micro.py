# Two towers that have learned the captions of the embedded scenes of large digits (64 pixels); they find candidates for
# a model that puts them in order
retriever = dict(
    type='florence_mm.UniCL',
    image_encoder=dict(
        type='florence_mm.CoSwin', arch='micro', img_size=32, patch_size=4, out_indices=(2,), drop_path_rate=0.0
    ),
    text_encoder=dict(type='florence_mm.CLIPTextTower', arch='micro', vocab_size=4096),
    tokenizer=dict(type='florence_mm.CLIPTokenizer', vocab_size=4096),
    embed_dims=64,
    init_cfg=dict(
        type='florence_mm.Pretrained', checkpoint='work_dirs/unicl_coswin-micro_2xb32-5e_large-digits/epoch_5.pth'
    ),
)
