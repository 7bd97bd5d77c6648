import pytest
import torch

from florence_mm.models.checkpoints.bert_layers import join_projections
from florence_mm.models.multimodal import CoAttentionLayer, CoAttentionStacks

# shapes: 3 pairs, 7 text tokens, 9 image tokens, 96 channels in 4 heads
TEXT_MASK = torch.arange(7) < torch.tensor([7, 3, 5])[:, None]
CONTEXT_MASK = torch.arange(9) < torch.tensor([2, 9, 5])[:, None]


def bert_layer(attention='eager'):
    """transformers' layer with cross-attention."""
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertLayer

    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=96,
        num_attention_heads=4,
        intermediate_size=384,
        is_decoder=True,
        add_cross_attention=True,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation=attention,
    )
    layer = BertLayer(config, layer_idx=0)
    for parameter in layer.parameters():  # also biases and norms away from 0 and 1
        torch.nn.init.normal_(parameter, std=0.2)
    for module in layer.modules():
        if hasattr(module, 'is_causal'):
            module.is_causal = False
    return layer


def additive(mask):
    return torch.zeros(len(mask), 1, 1, mask.shape[1]).masked_fill(~mask[:, None, None], torch.finfo(torch.float32).min)


def our_layer(peer):
    layer = CoAttentionLayer(96, 4, drop_rate=0.0, attn_drop_rate=0.0)
    layer.load_state_dict(join_projections(peer.state_dict()))
    return layer


def tokens(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 7, 96, generator=generator), torch.randn(3, 9, 96, generator=generator)


@pytest.mark.parametrize('attention', ['eager', 'sdpa'])
@pytest.mark.parametrize('padded', [False, True])
@pytest.mark.parametrize('grad', [False, True])
def test_layer_equals_transformers(attention, padded, grad):
    peer = bert_layer(attention)
    ours = our_layer(peer)
    masks = (TEXT_MASK, CONTEXT_MASK) if padded else (None, None)
    real = TEXT_MASK if padded else torch.ones(3, 7, dtype=torch.bool)
    results = []
    for run in (
        lambda x, c: ours(x, c, *masks),
        lambda x, c: peer(x, additive(TEXT_MASK) if padded else None, c, additive(CONTEXT_MASK) if padded else None),
    ):
        with torch.set_grad_enabled(grad):
            x, context = (t.requires_grad_(grad) for t in tokens())
            out = run(x, context)
            if grad:
                (out * torch.linspace(-1, 1, out.numel()).view_as(out) * real[..., None]).sum().backward()
            results.append((out[real], x.grad, context.grad))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    if padded:
        assert not ours(*tokens(), *masks)[~TEXT_MASK].any()
    if grad:
        expected = join_projections({k: p.grad for k, p in peer.named_parameters()})
        for name, parameter in ours.named_parameters():
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-4, msg=name)


def test_causal_layer_equals_transformers():
    peer = bert_layer('sdpa')
    x, context = tokens()
    mask = torch.zeros(1, 1, 7, 7).masked_fill(torch.ones(7, 7).triu(1).bool(), torch.finfo(torch.float32).min)
    expected = peer(x, mask, context, None)
    ours = our_layer(peer)
    torch.testing.assert_close(ours(x, context, causal=True), expected, rtol=1e-5, atol=1e-5)
    padded = ours(x, context, TEXT_MASK, causal=True)
    torch.testing.assert_close(padded[TEXT_MASK], expected[TEXT_MASK], rtol=1e-5, atol=1e-5)


def stacks(layers=3, **kwargs):
    torch.manual_seed(1)
    made = CoAttentionStacks(layers, 96, 4, **{'drop_rate': 0.0, 'attn_drop_rate': 0.0, **kwargs})
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made


def test_both_stacks_read_the_previous_pair():
    model, (text, image) = stacks(), tokens()
    expected = text, image
    for for_text, for_image in zip(model.text_layers, model.image_layers, strict=True):
        expected = (
            for_text(expected[0], expected[1], TEXT_MASK),
            for_image(expected[1], expected[0], None, TEXT_MASK),
        )
    for got, value in zip(model(text, image, TEXT_MASK), expected, strict=True):
        torch.testing.assert_close(got, value, rtol=1e-5, atol=1e-5)


def test_longer_padding_and_company_change_nothing():
    model, (text, image) = stacks().eval(), tokens()
    expected = model(text, image, TEXT_MASK)
    longer = torch.cat([text, torch.randn(3, 6, 96)], 1)
    got_of_longer = model(longer, image, torch.cat([TEXT_MASK, torch.zeros(3, 6).bool()], 1))
    for got, value in zip(got_of_longer, expected, strict=True):
        torch.testing.assert_close(got[:, : value.shape[1]], value, rtol=1e-5, atol=1e-5)
    alone = model(text[1:2, :3], image[1:2])
    torch.testing.assert_close(alone[0], expected[0][1:2, :3], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(alone[1], expected[1][1:2], rtol=1e-5, atol=1e-5)


def test_cross_attention_weights():
    model, (text, image) = stacks(2).eval(), tokens()
    fused = model(text, image, TEXT_MASK)
    *again, weights = model.forward_with_weights(text, image, TEXT_MASK, layers=(0, -1))
    for got, value in zip(again, fused, strict=True):
        torch.testing.assert_close(got, value)
    assert set(weights) == {0, -1}
    # weighting the values gives what the layer's attention gives to its output layer
    seen = {}
    layer = model.text_layers[1].crossattention
    layer.output.register_forward_pre_hook(lambda _, args: seen.update(x=args[0]))
    layer.key_value.register_forward_hook(lambda *args: seen.update(kv=args[2]))
    model(text, image, TEXT_MASK)
    value = seen['kv'].view(3, 9, 2, 4, 24)[:, :, 1].transpose(1, 2)  # (B, H, S, D)
    expected = (weights[-1].text_to_image @ value).transpose(1, 2).flatten(2)[TEXT_MASK]
    torch.testing.assert_close(seen['x'], expected, rtol=1e-5, atol=1e-5)
    assert weights[0].text_to_image.shape == (3, 4, 7, 9)
    sums = weights[0].text_to_image.sum(-1)
    torch.testing.assert_close(sums, TEXT_MASK[:, None].float().expand_as(sums))
    image_to_text = weights[-1].image_to_text
    assert not image_to_text.masked_select(~TEXT_MASK[:, None, None]).any()
    torch.testing.assert_close(image_to_text.sum(-1), torch.ones(3, 4, 9))
    with pytest.raises(ValueError, match=r'layers are \[2\]; the stacks have 2'):
        model.forward_with_weights(text, image, layers=(2,))


def test_captioning_looks_back_only_and_the_image_reads_no_text():
    model, (text, image) = stacks(), tokens()
    contexts = model.image_contexts(image)
    whole = model.decode(text, contexts, TEXT_MASK)
    assert not whole[~TEXT_MASK].any()
    for length in (1, 3):
        torch.testing.assert_close(model.decode(text[:, :length], contexts), whole[:, :length], rtol=1e-5, atol=1e-5)
    # of one layer the text is the first layer of the usual stack, run causally
    one = stacks(1)
    expected = one.text_layers[0](text, image, TEXT_MASK, causal=True)
    torch.testing.assert_close(one.decode(text, one.image_contexts(image), TEXT_MASK), expected, rtol=1e-5, atol=1e-5)
    # the second layer attends to the image after self-attention and MLP, without the text
    layer = model.image_layers[0]
    flat = layer.attention(image.flatten(0, 1), _dense(3, 9))
    second = layer.output(layer.intermediate(flat), flat).view(3, 9, 96)
    keys = model.text_layers[1].crossattention.key_value(second)[..., :96].view(3, 9, 4, 24).transpose(1, 2)
    torch.testing.assert_close(contexts[1][0], keys, rtol=1e-5, atol=1e-5)


def _dense(batch, length):
    from florence_mm.models.layers.token_layout import TokenLayout

    return TokenLayout(batch, length)


def test_recomputing_layers_gives_the_same_gradients():
    grads = []
    for with_cp in (False, True):
        model = stacks(2, with_cp=with_cp, drop_rate=0.2, attn_drop_rate=0.2)
        torch.manual_seed(5)
        text, image = model(*tokens(), TEXT_MASK)
        (text.square().sum() + image.square().sum()).backward()
        grads.append([p.grad for p in model.parameters()])
    for kept, recomputed in zip(*grads, strict=True):
        torch.testing.assert_close(recomputed, kept)


def test_dropout_is_used_in_training_alone():
    model = stacks(1, drop_rate=0.5, attn_drop_rate=0.5)
    outs = [model(*tokens())[0] for _ in range(2)]
    assert (outs[0] - outs[1]).abs().max() > 0.1
    model.eval()
    outs = [model(*tokens())[0] for _ in range(2)]
    torch.testing.assert_close(outs[0], outs[1], rtol=0, atol=0)


def test_no_mask_is_expanded(monkeypatch):
    from florence_mm.models.layers import transformer

    shapes, original = [], transformer.attention

    def watch(query, key, value, mask=None, *args, **kwargs):
        shapes.append(None if mask is None else tuple(mask.shape))
        return original(query, key, value, mask, *args, **kwargs)

    monkeypatch.setattr(transformer, 'attention', watch)
    stacks(1)(*tokens(), TEXT_MASK)
    # text within, text to image, image within, image to text
    assert shapes == [(3, 1, 1, 7), None, None, (3, 1, 1, 7)]


def test_refusals():
    with pytest.raises(ValueError, match='hidden_size is 96, which num_heads=5 does not divide'):
        CoAttentionLayer(96, 5)
    with pytest.raises(ValueError, match='drop_rate is 1; give at least 0 and less than 1'):
        CoAttentionLayer(96, 4, drop_rate=1)
    with pytest.raises(ValueError, match='num_layers is 0'):
        CoAttentionStacks(0)
    model, (text, image) = stacks(1), tokens()
    with pytest.raises(ValueError, match=r'the padding mask has shape \(3, 6\) and the tokens \(3, 7\)'):
        model(text, image, TEXT_MASK[:, :6])
    with pytest.raises(ValueError, match='a row of the padding mask has no real token'):
        model(text, image, torch.zeros(3, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match=r'torch.float32 of shape \(3, 7\); give bool'):
        model(text, image, TEXT_MASK.float())
    with pytest.raises(ValueError, match='padding before tokens'):
        model.decode(text, model.image_contexts(image), TEXT_MASK.flip(1))
