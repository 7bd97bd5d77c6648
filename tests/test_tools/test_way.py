import runpy
from pathlib import Path

way = runpy.run_path(str(Path(__file__).parents[2] / 'tools/misc/way.py'))


def test_a_question_goes_through_few_files_and_enters_the_model_thrice():
    calls = way['question_way']()
    assert way['entries'](calls) == ['encode_image', 'encode_tokens', 'fuse']
    files = {name for name, _, _ in calls}
    assert {'apis/multimodal_inferencer.py', 'models/heads/multimodal/vqa.py', 'models/backbones/coswin.py'} <= files
    # 20, the block that the towers of CLIP share, and of the layer of fusion its layout and its attention
    # and what CoSwin shares with DaViT, the stages
    assert len(files) <= 24, sorted(files)
