"""GIT against transformers' with weights drawn anew, and its checkpoints in both public layouts."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain.structures import DataSample
from public_git import END, START, TEXT, TOKENS, in_public_layout, our_git, their_git
from small_coswin import COSWIN

from florence_mm.models.checkpoints import (
    convert_file,
    convert_state_dict,
    export_state_dict,
    load_checkpoint,
    write_safetensors,
)
from florence_mm.models.multimodal import GIT
from florence_mm.models.tokenizers.protocol import TokenBatch
from florence_mm.registry import MODELS

CLOSE = {'rtol': 1e-5, 'atol': 1e-5}
TEXTS = ['a red two', 'no', 'three blue dogs by it']
LAYOUTS = {'GIT': in_public_layout, 'Hugging Face GIT': lambda theirs: theirs.state_dict()}


def same_weights(tmp_path, theirs, layout='Hugging Face GIT', frames=0, **kwargs):
    """Our model with the weights of transformers', and the report of loading them."""
    content = {key: value.clone() for key, value in LAYOUTS[layout](theirs).items()}
    torch.save({'model': content}, tmp_path / 'git.pt')
    ours = our_git(frames, **kwargs)
    return ours, load_checkpoint(ours, tmp_path / 'git.pt')


def pictures(*shape):
    return torch.randn(*shape, 16, 16, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def our_logits(model, inputs, tokens):
    state = model.start_writing(model.encode_image(inputs), range(len(inputs)))
    return model.heads['caption'](model.write_on(tokens, state).flatten(0, 1)).unflatten(0, tokens.mask.shape)


@torch.no_grad()
def their_logits(model, inputs, tokens, frames=1):
    outputs = model(input_ids=tokens.input_ids, attention_mask=tokens.mask.long(), pixel_values=inputs)
    return outputs.logits[:, TOKENS * frames :]


# --- parity -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('frames', [0, 1, 3])
def test_public_weights_give_the_public_logits(tmp_path, layout, frames):
    theirs = their_git(frames=frames or None)
    ours, report = same_weights(tmp_path, theirs, layout, frames)
    assert (report.format, report.missing, report.unexpected) == (layout, [], [])
    x = pictures(3, frames, 3) if frames else pictures(3, 3)
    tokens = ours.tokenize(TEXTS)
    got = our_logits(ours, x.transpose(1, 2) if frames else x, tokens)
    want = their_logits(theirs, x, tokens, frames or 1)
    assert not tokens.mask.all() and want.std() > 0.3
    torch.testing.assert_close(got[tokens.mask], want[tokens.mask], **CLOSE)


@pytest.mark.parametrize('seen', [1, 2])
def test_a_video_may_have_fewer_frames(tmp_path, seen):
    theirs = their_git(frames=3)
    ours, _ = same_weights(tmp_path, theirs, frames=3)
    x, tokens = pictures(1, seen, 3), ours.tokenize(['a dog'])
    want = their_logits(theirs, x, tokens, seen)
    torch.testing.assert_close(our_logits(ours, x.transpose(1, 2), tokens), want, **CLOSE)


def caption_loss(tmp_path, **head):
    theirs = their_git()
    ours, _ = same_weights(tmp_path, theirs, head=head)
    x, tokens = pictures(3, 3), ours.tokenize(TEXTS)
    got = ours(x, [DataSample(text=text) for text in TEXTS], mode='loss')['loss_caption']
    labels = tokens.input_ids.masked_fill(~tokens.mask, -100)
    return got, theirs, x, tokens, labels


def test_loss_of_captions(tmp_path):
    got, theirs, x, tokens, labels = caption_loss(tmp_path)
    want = theirs(tokens.input_ids, attention_mask=tokens.mask.long(), pixel_values=x, labels=labels).loss
    torch.testing.assert_close(got, want, **CLOSE)


def test_smoothing_over_the_other_tokens(tmp_path):
    got, theirs, x, tokens, labels = caption_loss(tmp_path, label_smoothing=0.1, smoothing_over='others')
    logits = their_logits(theirs, x, tokens)[:, :-1][tokens.mask[:, 1:]]
    target = labels[:, 1:][tokens.mask[:, 1:]]
    wanted = torch.full_like(logits, 0.1 / (logits.shape[1] - 1)).scatter(1, target[:, None], 0.9)
    torch.testing.assert_close(got, -(wanted * logits.log_softmax(1)).sum(1).mean(), **CLOSE)


def test_a_question_is_a_beginning_that_is_not_predicted(tmp_path):
    theirs = their_git()
    ours, _ = same_weights(tmp_path, theirs, head={'type': 'FusionWrittenAnswerHead', 'max_length': 6})
    x, questions, answers = pictures(3, 3), ['a red two', 'no', 'a dog'], ['blue', 'red dog', 'no']
    samples = [DataSample(text=text, answers=[answer]) for text, answer in zip(questions, answers, strict=True)]
    got = ours(x, samples, mode='loss')['loss_answer']
    want = 0
    for image, question, answer in zip(x, questions, answers, strict=True):
        question, answer = (ours.tokenize([text]).input_ids[0] for text in (question, answer))
        ids = torch.cat([question[:-1], answer[1:]])
        labels = ids.clone()
        labels[: len(question) - 1] = -100
        want += theirs(ids[None], pixel_values=image[None], labels=labels[None]).loss * (len(answer) - 1)
    torch.testing.assert_close(got, want / 3, **CLOSE)


@pytest.mark.parametrize('beams', [1, 3])
@pytest.mark.parametrize('prompted', [False, True])
@torch.no_grad()
def test_it_writes_the_texts_of_transformers(tmp_path, beams, prompted):
    theirs = their_git()
    theirs.output.bias[END] += 2  # so that texts may end in between
    # of several beams transformers also keeps finished ones that are no longer among the best, so no beam ends early
    ours, _ = same_weights(tmp_path, theirs, head={'num_beams': beams, 'max_length': 9, 'min_length': 9 * (beams > 1)})
    prompts = ['a red two', 'no red dog', 'two'] if prompted else None
    x, seen = 3 * pictures(3, 3), set()
    found = [ours.heads['caption'].decode(ours, ours.encode_image(x), prompts, cached).ids for cached in (True, False)]
    for row in range(3):
        first = torch.tensor([[START]]) if prompts is None else ours.tokenize([prompts[row]]).input_ids[:, :-1]
        ids = theirs.generate(
            pixel_values=x[row : row + 1],
            input_ids=first,
            attention_mask=torch.ones_like(first),
            num_beams=beams,
            do_sample=False,
            max_new_tokens=10,
            min_new_tokens=9 if beams > 1 else None,
            logits_processor=[partial(_end, at=first.shape[1] + 9)],
        )[0, first.shape[1] :].tolist()
        assert found[0][row] == found[1][row] == ids[: ids.index(END)]
        seen.add(tuple(found[0][row]))
    assert all(seen) and len(seen) > prompted


def _end(ids, scores, at):
    """Ban special tokens, and end a text at the greatest length, as the rules of ours do."""
    scores[:, [START, END + 1]] = -torch.inf
    if ids.shape[1] == at:
        scores[:, :END] = -torch.inf
    return scores


# --- checkpoints ------------------------------------------------------------------------------------------------------


def written(model, folder, to, **settings):
    """Tensors of a model of ours in a public layout, through files."""
    write_safetensors(folder / 'ours.safetensors', model.state_dict())
    return convert_file(folder / 'ours.safetensors', folder / 'out', to, settings={'num_heads': 4, **settings})


@pytest.mark.parametrize('frames', [0, 2])
def test_transformers_reads_the_folder_that_is_written(tmp_path, frames):
    from transformers import GitForCausalLM

    ours, _ = same_weights(tmp_path, their_git(frames=frames or None), frames=frames)
    settings = {'num_heads of the image tower': 2, 'embed_norm_eps': 1e-8}
    report = written(ours, tmp_path, 'hugging-face-git', **settings)
    assert 'transformers computes the norm of embeddings with 1e-12, also for the weights that GIT' in str(report)
    theirs, found = GitForCausalLM.from_pretrained(tmp_path / 'out', output_loading_info=True)
    assert not found['missing_keys'] and not found['unexpected_keys']
    x, tokens = pictures(2, frames, 3) if frames else pictures(2, 3), ours.tokenize(['a dog', 'no two'])
    got = our_logits(ours, x.transpose(1, 2) if frames else x, tokens)[tokens.mask]
    torch.testing.assert_close(got, their_logits(theirs.eval(), x, tokens, frames or 1)[tokens.mask], **CLOSE)


def test_a_head_of_another_name_is_the_output_layer():
    model = GIT(
        image_encoder=our_git().image_encoder,
        tokenizer=our_git().tokenizer,
        text=TEXT,
        heads={'vqa': {'type': 'FusionWrittenAnswerHead', 'tied': True, 'transform': False}},
    )
    tensors = export_state_dict(model.state_dict(), 'GIT').tensors
    assert tensors['textual.output.bias'].data_ptr() == model.heads['vqa'].bias.data_ptr()
    assert torch.equal(tensors['textual.output.weight'], tensors['textual.embedding.words.weight'])


def test_an_output_layer_of_its_own(tmp_path):
    theirs = their_git(tie_word_embeddings=False)
    with pytest.raises(
        ValueError, match='has heads.caption.decoder.weight, which GIT lacks.*set tied=False of the cap'
    ):
        same_weights(tmp_path, theirs)
    ours, _ = same_weights(tmp_path, theirs, head={'tied': False})
    tokens = ours.tokenize(['a dog'])
    torch.testing.assert_close(
        our_logits(ours, pictures(1, 3), tokens), their_logits(theirs, pictures(1, 3), tokens), **CLOSE
    )
    written(ours, tmp_path, 'Hugging Face GIT', **{'num_heads of the image tower': 2})
    assert json.loads((tmp_path / 'out' / 'config.json').read_text())['tie_word_embeddings'] is False


def test_a_head_behind_layers_or_an_image_encoder_is_refused(tmp_path):
    state = our_git().state_dict()
    more = {**state, 'heads.caption.transform.dense.weight': torch.zeros(2, 2)}
    with pytest.raises(ValueError, match='has heads.caption.transform.dense.weight, which is in no GIT'):
        export_state_dict(more, 'GIT')
    with pytest.raises(ValueError, match='has text_stack.layers.0.crossattention.query.weight, which is in no GIT'):
        export_state_dict(our_git(cross_attention=True).state_dict(), 'GIT')
    with pytest.raises(ValueError, match='more or other heads than one on the words'):
        export_state_dict({**state, 'heads.vqa.bias': torch.zeros(2)}, 'GIT')
    other = {key: value for key, value in state.items() if not key.startswith('image_encoder.')}
    with pytest.raises(ValueError, match="GIT's public code takes CLIP's ViT, and this has another image encoder"):
        export_state_dict(other, 'Hugging Face GIT')
    with pytest.raises(ValueError, match='its projection_eps is 0.1, and transformers computes with 1e-05'):
        export_state_dict(state, 'Hugging Face GIT', settings={'projection_eps': 0.1})


def test_incomplete_and_other_files_are_refused(tmp_path):
    state = in_public_layout(their_git(frames=2))
    with pytest.raises(ValueError, match=r'vectors of 1 frames and not img_temperal_embedding\.0; it is incomplete'):
        convert_state_dict({key: value for key, value in state.items() if key != 'img_temperal_embedding.0'})
    with pytest.raises(ValueError, match='has frame_embeddings, which GIT lacks.*set num_frames of GIT'):
        same_weights(tmp_path, their_git(frames=2))
    with pytest.raises(ValueError, match='need cross_attention=False and GIT has cross_attention=True'):
        same_weights(tmp_path, their_git(), cross_attention=True)
    (tmp_path / 'config.json').write_text(json.dumps({'model_type': 'git', 'hidden_act': 'relu'}))
    with pytest.raises(ValueError, match="says hidden_act 'relu' of its text layers, which GIT does not have"):
        same_weights(tmp_path, their_git())


def test_the_config_beside_the_file_tells_settings(tmp_path):
    config = {'model_type': 'git', 'layer_norm_eps': 1e-6, 'vision_config': {'hidden_act': 'gelu'}}
    (tmp_path / 'config.json').write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"need act of the image tower='gelu', .*layer_norm_eps=1e-06"):
        same_weights(tmp_path, their_git())


@pytest.mark.parametrize(('size', 'millions'), [('clip-vit-b-16', 176.6), ('clip-vit-l-14', 394.2)])
def test_the_published_sizes(size, millions):
    # they count the output layer a second time
    cfg = Config.fromfile(Path(__file__).parents[2] / f'configs/_base_/models/git_{size}.py').model
    cfg.heads.caption.tied = False
    cfg.tokenizer.pretrained = None
    with torch.device('meta'):
        model = MODELS.build(cfg)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1) == millions


# --- the model --------------------------------------------------------------------------------------------------------


def test_pictures_are_computed_once_for_several_texts():
    model = our_git().double()
    image_tokens, ids = model.encode_image(pictures(2, 3).double()), model.tokenize(TEXTS)
    rows = [0, 1, 0]
    got = model.write_on(ids, model.start_writing(image_tokens, rows))
    alone = model.write_on(ids, model.start_writing(image_tokens[rows], range(3)))
    torch.testing.assert_close(got, alone)
    memory = model.start_writing(image_tokens, [0, 0, 1, 1]).memory
    assert [len(keys) for keys, _ in memory.prefixes] == [2, 2]


@pytest.mark.parametrize('cross_attention', [False, True])
def test_frames_have_vectors_of_their_own(cross_attention):
    model = our_git(2, cross_attention=cross_attention).double()
    x, tokens = pictures(1, 3, 2).double(), TokenBatch(torch.tensor([[START, 7, 9]]), torch.ones(1, 3).bool())
    with torch.no_grad():
        plain = our_logits(model, x, tokens)
        turned = our_logits(model, x.flip(2), tokens)
        torch.testing.assert_close(plain, turned)  # at first they are 0, and nothing tells the order
        model.frame_embeddings.normal_()
        assert (our_logits(model, x, tokens) - our_logits(model, x.flip(2), tokens)).abs().max() > 1e-5


def test_a_clip_of_a_pipeline_is_its_frames():
    model, x = our_git(3).double(), pictures(2, 3, 3).double()
    torch.testing.assert_close(model.encode_image(x[:, None]), model.encode_image(x), rtol=0, atol=0)
    with pytest.raises(ValueError, match='GIT got 2 clips a video and reads one; sample its frames as one clip'):
        model.encode_image(torch.stack([x, x], 1))


def test_refused_frames():
    with pytest.raises(ValueError, match='num_frames is -1; give the most frames of a video'):
        our_git(-1)
    with pytest.raises(ValueError, match='a video has 3 frames and num_frames of GIT is 2; sample fewer or raise it'):
        our_git(2).encode_image(pictures(1, 3, 3))
    with pytest.raises(ValueError, match='a video has 1 frames and num_frames of GIT is 0'):
        our_git().encode_image(pictures(1, 3, 1))


def test_refused_texts_and_heads():
    with pytest.raises(ValueError, match='20 tokens in max_text_len and context_length of TextStack is 9'):
        GIT(COSWIN, our_git().tokenizer, {**TEXT, 'max_positions': 9}, max_text_len=20)
    with pytest.raises(ValueError, match='tied'):
        our_git(head={'vocab_size': 900})
    with pytest.raises(ValueError, match='needs a fuser, which GIT is not'):
        GIT(our_git().image_encoder, our_git().tokenizer, TEXT, {'itm': {'type': 'FusionITMHead'}}, max_text_len=20)


def test_the_prefix_learns_by_the_words_behind_it():
    model = our_git()
    loss = model(pictures(3, 3), [DataSample(text=text) for text in TEXTS], mode='loss')['loss_caption']
    loss.backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()}
    assert without == set()
