"""S3DiT against diffusers' ZImageTransformer2DModel on the same random weights."""

from __future__ import annotations

import oracles
import pytest
import torch
from oracles import captions, diffusers_velocity, latents, relative

from zimage_core import S3DiT, S3DiTConfig


def test_the_full_configuration_has_the_published_size():
    state = S3DiT(device="meta").state_dict()
    assert len(state) == 453
    assert sum(p.numel() for p in state.values()) == 6_154_908_736


def test_the_full_configuration_has_the_published_shapes():
    state = S3DiT(device="meta").state_dict()
    assert state["layers.29.attention.qkv.weight"].shape == (11520, 3840)
    assert state["layers.0.adaLN_modulation.0.weight"].shape == (15360, 256)
    assert state["layers.0.feed_forward.w1.weight"].shape == (10240, 3840)
    assert state["cap_embedder.1.weight"].shape == (3840, 2560)
    assert state["final_layer.adaLN_modulation.1.weight"].shape == (3840, 256)
    assert state["x_pad_token"].shape == (1, 3840)
    assert S3DiTConfig().axes_dims == (32, 48, 48)


@pytest.mark.parametrize("size", [(16, 16), (8, 8), (10, 14), (36, 20), (6, 64)])
@pytest.mark.parametrize("lengths", [(1,), (20,), (32,), (37,), (500,), (500, 20, 37), (1, 32, 33)])
def test_agrees_with_diffusers(model, reference, size, lengths):
    x, caps = latents(len(lengths), *size), captions(*lengths)
    sigma = torch.linspace(1, 0.3, len(lengths))
    expected = diffusers_velocity(reference, x, sigma, caps)
    assert (model(x, sigma, caps) - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("lengths", [(37,), (500, 20, 37)])
def test_bfloat16_is_as_close_as_diffusers_is(model, reference, tmp_path, lengths):
    x, caps, sigma = latents(len(lengths), 16, 20), captions(*lengths), torch.linspace(0.9, 0.4, len(lengths))
    exact = model(x, sigma, caps)
    ours = oracles.our_transformer(reference, tmp_path, "bfloat16")
    theirs = oracles.diffusers_transformer().to(torch.bfloat16)
    half = [c.bfloat16() for c in caps]
    error = relative(ours(x.bfloat16(), sigma, half), exact)
    allowed = relative(diffusers_velocity(theirs, x.bfloat16(), sigma, half), exact)
    assert 0 < error <= 1.1 * allowed


def test_a_ragged_batch_equals_its_items(model):
    x, caps, sigma = latents(3, 12, 10), captions(70, 1, 33), torch.tensor([0.9, 0.5, 0.1])
    together = model(x, sigma, caps)
    for i in range(3):
        alone = model(x[i : i + 1], sigma[i : i + 1], caps[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-5, atol=1e-5)


def test_what_prepare_returns_stands_for_the_captions(model):
    x, caps = latents(2, 8, 12), captions(5, 40)
    context = model.prepare(caps, 8, 12)
    assert torch.equal(model(x, 0.7, context), model(x, torch.tensor([0.7, 0.7]), caps))


def test_one_caption_serves_a_whole_batch(model):
    x, (caption,) = latents(3, 8, 8), captions(21)
    torch.testing.assert_close(model(x, 0.5, [caption]), model(x, 0.5, [caption] * 3), rtol=1e-5, atol=1e-5)


def test_a_batch_that_does_not_match_is_refused(model):
    with pytest.raises(ValueError, match="2 captions for 3 latents"):
        model(latents(3, 8, 8), 0.5, captions(4, 4))


def test_odd_latents_are_refused(model):
    with pytest.raises(ValueError, match="7 x 8"):
        model(latents(1, 7, 8), 0.5, captions(4))


def test_float16_clamps_what_overflows(reference, tmp_path):
    model = oracles.our_transformer(reference, tmp_path, "float16")
    exact = oracles.our_transformer(reference, tmp_path)
    overflows = []

    def watch(_, inputs):  # what w2 is given has been clamped: count the values at the limit
        overflows.append(int((inputs[0].abs() == 65504).sum()))

    for half, full in zip(model.layers, exact.layers):
        for weights in (half.feed_forward, full.feed_forward):
            weights.w1.weight.mul_(150)
            weights.w3.weight.mul_(150)
        half.feed_forward.w2.register_forward_pre_hook(watch)
    x, caps = latents(1, 8, 8), captions(9)
    v = model(x.half(), 0.5, caps)
    assert sum(overflows) > 0
    assert v.isfinite().all() and relative(v, exact(x, 0.5, caps)) < 0.3


def test_captions_beyond_float16_are_clamped(reference, tmp_path):
    model = oracles.our_transformer(reference, tmp_path, "float16")
    (caption,) = captions(9)
    caption[:, 3] = 1e5  # Qwen3's massive activations
    v = model(latents(1, 8, 8).half(), 0.5, [caption])
    assert v.isfinite().all()
    assert relative(v, oracles.our_transformer(reference, tmp_path)(latents(1, 8, 8), 0.5, [caption])) < 0.05


def test_the_arithmetic_follows_the_weights(reference, tmp_path):
    model = oracles.our_transformer(reference, tmp_path)
    x, caps = latents(1, 8, 8), captions(9)
    expected = model(x, 0.5, caps)
    half = model.bfloat16()
    assert half.dtype == torch.bfloat16
    assert 0 < relative(half(x, 0.5, caps), expected) < 0.05
    assert half.to("cpu").dtype == torch.bfloat16 and half.float().dtype == torch.float32


def test_a_context_serves_its_own_size_only(model):
    context = model.prepare(captions(5), 8, 12)
    assert model.prepare(context, 8, 12) is context
    with pytest.raises(ValueError, match=r"\(8, 12\), and these are \(12, 8\)"):
        model(latents(1, 12, 8), 0.5, context)


def test_one_caption_without_its_list_is_refused(model):
    with pytest.raises(ValueError, match="list of"):
        model(latents(1, 8, 8), 0.5, captions(5)[0])
