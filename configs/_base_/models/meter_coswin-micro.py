# METER on two towers that descend from the quickstart's, for the embedded scenes of large digits (64 pixels)
_base_ = './large-digits_coswin-micro.py'
model = dict(
    type='florence_mm.METER',
    text_encoder=dict(
        type='florence_mm.CLIPTokenEncoder',
        tower=dict(
            arch='micro',
            vocab_size=4096,
            init_cfg=dict(type='florence_mm.Pretrained', checkpoint={{_base_.towers}}, prefix='text_encoder.'),
        ),
    ),
    fusion=dict(
        hidden_size=96, num_layers=2, num_heads=4, mlp_ratio=2.0, drop_rate=0.0, attn_drop_rate=0.0, init_std=96**-0.5
    ),
)
