# The control of questions that ask where digits are: regions without their positions, trained and tested
_base_ = './uniter_micro_2xb64-6e_large-digit-vqa.py'
from florence_mm.config.pick import find_step

for loader in (_base_.train_dataloader, _base_.val_dataloader, _base_.test_dataloader):
    find_step(loader, 'LoadRegions').positions = False
del loader, find_step
