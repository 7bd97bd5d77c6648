_base_ = './unicl_coswin-t_8xb512-32e_in21k-yfcc14m.py'

model = dict(image_encoder=dict(arch='base', drop_path_rate=0.5, with_cp=True))
