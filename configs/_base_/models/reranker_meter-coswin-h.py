# Florence's two towers at 384 pixels find the candidates, METER-CoSwin-H puts them in order
_base_ = './meter_coswin-h.py'

model = dict(
    _delete_=True,
    type='florence_mm.RetrievalReranker',
    data_preprocessor=dict(type='florence_mm.ImageTextDataPreprocessor'),
    retriever=dict(
        type='florence_mm.UniCL',
        image_encoder=dict(type='florence_mm.CoSwin', arch='huge', img_size=384, window_size=12),
        text_encoder=dict(type='florence_mm.CLIPTextTower', arch='huge'),
        tokenizer=dict(type='florence_mm.CLIPTokenizer'),
        embed_dims=1024,
        init_cfg=dict(
            type='florence_mm.Pretrained',
            checkpoint='work_dirs/unicl_coswin-h_512xb48-80k_fld900m-384/iter_80000.pth',
        ),
    ),
    matcher={{_base_.model}},
)
smoke = dict(
    model=dict(
        _delete_=True,
        retriever=dict(
            image_encoder=dict(arch=dict(_delete_=True, embed_dims=32, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])),
            text_encoder=dict(arch=dict(_delete_=True, embed_dims=64, num_layers=1, num_heads=1)),
        ),
        matcher={{_base_.smoke.model}},
    )
)
