"""Solvers on a field with a known solution, and whole trajectories against diffusers' ZImagePipeline."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import captions, latents

from zimage_core import sample, sigmas
from zimage_core.guidance import cfg_from_guidance, combine, is_guided
from zimage_core.sampling import SOLVERS, forwards

ORDER = {"euler": 1, "heun": 2, "res_multistep": 2}


def gaussian_field(mean: float = 0.7, std: float = 0.4):
    """The exact velocity where the data are N(mean, std^2): `(variance' x-part) / 2 ...`, and its exact solution.

    x_sigma = (1 - sigma) x0 + sigma n is N((1 - sigma) m, V) with V = (1 - sigma)^2 s^2 + sigma^2, so the flow keeps
    (x - (1 - sigma) m) / sqrt(V) constant.
    """

    def variance(sigma: float) -> float:
        return (1 - sigma) ** 2 * std**2 + sigma**2

    def velocity(x, sigma, captions=None):
        slope = (sigma - (1 - sigma) * std**2) / variance(sigma)
        return -mean + slope * (x - (1 - sigma) * mean)

    def solution(x, start, end):
        return (1 - end) * mean + math.sqrt(variance(end) / variance(start)) * (x - (1 - start) * mean)

    return velocity, solution


def run(solver, steps, start=1.0, end=0.0):
    velocity, solution = gaussian_field()
    x = latents(1, 2, 2).double()
    levels = torch.linspace(start, end, steps + 1, dtype=torch.float64).tolist()
    *_, (_, result, _) = SOLVERS[solver](lambda x, s: velocity(x, s), x, levels)
    return float((result - solution(x, start, end)).abs().max())


@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers_reach_the_known_solution_at_their_order(solver):
    # On a stretch where log sigma is regular: the error falls by 2^order when the steps are halved.
    coarse, fine = run(solver, 40, 0.95, 0.2), run(solver, 80, 0.95, 0.2)
    assert math.log2(coarse / fine) == pytest.approx(ORDER[solver], abs=0.25)


@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers_converge_down_to_sigma_0(solver):
    assert run(solver, 200) < 0.02


@pytest.mark.parametrize("solver", SOLVERS)
def test_steps_count_forwards(solver):
    calls = []

    def model(x, sigma, captions):
        calls.append(sigma)
        return gaussian_field()[0](x, sigma)

    steps = list(sample(model, latents(1, 4, 4), sigmas(8, 3), captions(3), solver=solver))
    assert len(calls) == len(steps) == forwards(solver, 8)
    assert [step.index for step in steps] == list(range(len(steps)))
    assert steps[-1].sigma == 0
    torch.testing.assert_close(steps[-1].latents, steps[-1].denoised, rtol=1e-5, atol=1e-5)


def test_strength_0_makes_no_forward():
    assert list(sample(None, latents(1, 4, 4), sigmas(8, 3, 0), captions(3))) == []


@pytest.fixture(scope="module")
def pipeline(reference):
    """diffusers' pipeline around the oracle, with prompts already encoded and no VAE at the end."""
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline

    pipe = ZImagePipeline.__new__(ZImagePipeline)
    super(ZImagePipeline, pipe).__init__()
    pipe.register_modules(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=None,
        text_encoder=None,
        tokenizer=None,
        transformer=reference,
    )
    pipe.vae_scale_factor = 8
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize(
    "guidance, normalization, truncation",
    [(0, 0, 1.0), (4, 0, 1.0), (4, 1.0, 1.0), (4, 0.5, 1.0), (3, 0, 0.4), (4, 1.0, 0.2)],
)
@pytest.mark.parametrize("batch", [1, 2])
def test_trajectories_equal_diffusers(model, pipeline, guidance, normalization, truncation, batch):
    noise, positive, negative = latents(batch, 8, 12), captions(37, 9)[:batch], captions(12, 40, seed=5)[:batch]
    expected = pipeline(
        prompt_embeds=positive,
        negative_prompt_embeds=negative,
        latents=noise,
        height=64,
        width=96,
        num_inference_steps=8,
        guidance_scale=float(guidance),
        cfg_normalization=normalization,
        cfg_truncation=truncation,
        output_type="latent",
    ).images
    *_, last = sample(
        model,
        noise,
        sigmas(8, 6),
        positive,
        negative=negative,
        cfg=cfg_from_guidance(guidance),
        cfg_normalization=normalization,
        cfg_truncation=truncation,
    )
    torch.testing.assert_close(last.latents, expected, rtol=1e-4, atol=1e-4)


def test_a_truncated_step_costs_one_forward():
    batches = []

    def model(x, sigma, captions):
        batches.append(len(x))
        return torch.zeros_like(x)

    caps = captions(3)
    list(sample(model, latents(1, 4, 4), sigmas(4, 1), caps, negative=caps, cfg=4.0, cfg_truncation=0.4))
    assert batches == [2, 2, 1, 1]  # 1 - sigma is 0, 0.25, 0.5, 0.75


def test_cfg_1_never_runs_the_negative():
    assert not is_guided(0.5, cfg=1.0)
    batches = []
    caps = captions(3)
    list(sample(lambda x, s, c: batches.append(len(x)) or x, latents(1, 4, 4), sigmas(3, 3), caps, negative=caps))
    assert batches == [1, 1, 1]


def test_normalization_only_ever_reduces_and_by_sample():
    positive, negative = latents(3, 4, 4), latents(3, 4, 4, seed=9)
    negative[1] = positive[1]  # nothing to guide: must stay as it is
    plain, limited = combine(positive, negative, 5.0), combine(positive, negative, 5.0, 1.0)
    norms = [t.flatten(1).norm(dim=1) for t in (positive, plain, limited)]
    torch.testing.assert_close(norms[2], torch.minimum(norms[0], norms[1]))
    torch.testing.assert_close(limited[1], positive[1])


def test_cfg_without_a_negative_is_refused(model):
    with pytest.raises(ValueError, match="cfg 5 needs a negative"):
        sample(model, latents(1, 8, 8), sigmas(4, 6), captions(3), cfg=5.0)


def test_prepared_captions_will_do_without_guidance(model):
    x, caps = latents(1, 8, 8), captions(5)
    *_, a = sample(model, x, sigmas(2, 3), model.prepare(caps, 8, 8))
    *_, b = sample(model, x, sigmas(2, 3), caps)
    assert torch.equal(a.latents, b.latents)
    with pytest.raises(ValueError, match="lists of captions"):
        next(sample(model, x, sigmas(2, 3), model.prepare(caps, 8, 8), negative=caps, cfg=2.0))


def test_an_unknown_solver_is_refused(model):
    with pytest.raises(ValueError, match="res_multistep"):
        (sample(model, latents(1, 8, 8), sigmas(4, 6), captions(3), solver="magic"))


def test_positive_and_negative_in_one_batch_are_what_each_alone_would_be(model):
    x, positive, negative = latents(2, 8, 8), captions(50, 3), captions(8, 8, seed=4)
    one = next(sample(model, x, sigmas(1, 3), positive, negative=negative, cfg=3.0)).latents
    v = combine(model(x, 1.0, positive), model(x, 1.0, negative), 3.0)
    torch.testing.assert_close(one, x - v, rtol=1e-5, atol=1e-5)
