# Two towers find captions of the embedded scenes, METER puts them in order
_base_ = './meter_coswin-micro.py'

model = dict(
    _delete_=True,
    type='florence_mm.RetrievalReranker',
    data_preprocessor=dict(type='florence_mm.ImageTextDataPreprocessor'),
    retriever=dict(
        type='florence_mm.UniCL',
        image_encoder={{_base_.model.image_encoder}},
        text_encoder=dict(type='florence_mm.CLIPTextTower', arch='micro', vocab_size=4096),
        tokenizer=dict(type='florence_mm.CLIPTokenizer', vocab_size=4096),
        embed_dims=64,
    ),
    matcher={{_base_.model}},
)
