# The quickstart's two towers for clips: its windows in height and width, two frames a token
_base_ = './unicl_coswin-t.py'

model = dict(
    image_encoder=dict(
        _delete_=True,
        type='florence_mm.VideoCoSwin',
        arch='micro',
        patch_size=(2, 4, 4),
        window_size=[(2, 4, 4), (4, 4, 4), (4, 2, 2)],
        drop_path_rate=0.0,
    ),
    text_encoder=dict(arch='micro', vocab_size=4096),
    tokenizer=dict(vocab_size=4096),
    embed_dims=64,
)
