"""Small heads of models over images and texts."""

import torch
from instances import Small
from whole_kinds import FusionHead

ANSWERS = [
    {'answer_labels': [0, 2], 'answer_scores': [1.0, 0.3]},
    {'answer_labels': [1], 'answer_scores': [0.6]},
    {'answer_labels': [], 'answer_scores': []},  # none of the known answers is right
]

WORDS = [{'answers': ['two', '2', 'a three']}, {'answers': ['yes']}, {'answers': ['the']}]  # the last says nothing
FALSE = [['no', 'by it'], ['a dog', 'two'], ['red', 'two dogs']]
CLASSES = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0)).softmax(2)  # background and four classes
LISTED = {'type': 'FusionWrittenAnswerHead', 'answers': ['two', 'red', 'yes', 'no'], 'max_length': 4}


def written(config, fields=ANSWERS):
    """A head that writes answers, in place of one that classifies them."""
    reads = ['pred_answer', 'answer_score']
    return Small(config, FusionHead(reads, discrete=reads, fields=fields, does='answers'), ['ChoosesAnswers'])


SMALL = {
    'FusionITMHead': Small({'type': 'FusionITMHead'}, FusionHead(['match_score'], does='matches'), ('WholeBatchLoss',)),
    'FusionRankingHead': Small(
        {'type': 'FusionRankingHead'},
        FusionHead(['match_score'], fields=[{'false_texts': texts} for texts in FALSE], does='matches'),
    ),
    'FusionMRFRHead': Small({'type': 'FusionMRFRHead'}, FusionHead(['pred_features'])),
    'FusionMRCHead': Small(
        {'type': 'FusionMRCHead', 'num_classes': 4},
        FusionHead(['pred_region_classes'], fields=[{'region_classes': rows} for rows in CLASSES]),
    ),
    'FusionMLMHead': Small(
        {'type': 'FusionMLMHead', 'probability': 0.5}, FusionHead(['pred_text'], discrete=['pred_text'])
    ),
    'FusionVQAHead': Small(
        {'type': 'FusionVQAHead', 'answers': ['two', 'red', 'yes']},
        FusionHead(['pred_scores', 'pred_answer'], discrete=['pred_answer'], fields=ANSWERS, does='answers'),
        ['ChoosesAnswers'],
    ),
    'FusionWrittenAnswerHead': written({'type': 'FusionWrittenAnswerHead', 'max_length': 5}, fields=WORDS),
    'FusionWrittenAnswerHead-restricted': written({**LISTED, 'restrict': True, 'num_beams': 2}),
    'FusionWrittenAnswerHead-ranked': written({**LISTED, 'rank': 2}),
    'FusionCaptionHead': Small(
        {'type': 'FusionCaptionHead', 'num_beams': 2, 'max_length': 5},
        FusionHead(['pred_caption', 'caption_score'], discrete=['pred_caption', 'caption_score'], does='writes'),
    ),
    'TaskHead': Small(
        {'type': 'TaskHead', 'max_length': 5, 'tied': False},
        FusionHead(
            ['pred_text', 'text_score'],
            discrete=['pred_text'],
            fields=[{'prompt': prompt, 'task': 'caption'} for prompt in ('what is it', 'a', 'two by')],
            does='writes',
        ),
    ),
    'FusionITCHead': Small(
        {'type': 'FusionITCHead', 'embed_dims': 8},
        FusionHead(['image_feat', 'text_feat'], fields=[{'texts': ['two dogs', name]} for name in ('red', 'no', 'by')]),
        ('WholeBatchLoss', 'LimitsScalars', 'FollowsWeights', 'CountsSteps'),
    ),
}
