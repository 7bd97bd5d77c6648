# METER-CoSwin-H: 878M parameters before the heads
_base_ = './meter_coswin-t.py'

model = dict(image_encoder=dict(arch='huge', with_cp=True))
