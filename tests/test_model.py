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
    for block in model.layers:  # makes silu(w1 x) * w3 x exceed 65504 in every block
        block.feed_forward.w1.weight.mul_(400)
        block.feed_forward.w3.weight.mul_(400)
    x, caps = latents(1, 8, 8).half(), [c.half() for c in captions(9)]
    overflowing = model.layers[0].feed_forward
    hidden = torch.randn(4, 128).half() * 4
    assert not (torch.nn.functional.silu(overflowing.w1(hidden)) * overflowing.w3(hidden)).isfinite().all()
    assert model(x, 0.5, caps).isfinite().all()
