"""Noise levels against the reference's published tables, diffusers, and the definition of strength."""

from __future__ import annotations

import pytest
import torch

from zimage_core import sigmas

GOLDEN = {
    (3, 4): [1, 0.9, 0.75, 0.5, 0],
    (3, 8): [1, 0.954545, 0.9, 0.833333, 0.75, 0.642857, 0.5, 0.3, 0],
    (6, 8): [1, 0.976744, 0.947368, 0.909091, 0.857143, 0.782609, 0.666667, 0.461538, 0],
    (6, 28): [
        1, 0.993865, 0.987342, 0.980392, 0.972973, 0.965035, 0.956522, 0.947368, 0.9375, 0.926829, 0.915254, 0.902655,
        0.888889, 0.873786, 0.857143, 0.83871, 0.818182, 0.795181, 0.769231, 0.739726, 0.705882, 0.666667, 0.62069,
        0.566038, 0.5, 0.418605, 0.315789, 0.181818, 0,
    ],
}  # fmt: skip


@pytest.mark.parametrize("shift, steps", GOLDEN)
def test_golden_tables(shift, steps):
    torch.testing.assert_close(sigmas(steps, shift), torch.tensor(GOLDEN[shift, steps]).float(), rtol=0, atol=1e-6)


def test_the_end_of_fifty_steps_at_shift_6():
    torch.testing.assert_close(sigmas(50, 6)[-3:], torch.tensor([0.2, 0.109091, 0.0]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shift", [1, 3, 6])
@pytest.mark.parametrize("steps", [1, 4, 8, 28, 50])
def test_equals_diffusers_scheduler(shift, steps):
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.z_image.pipeline_z_image import get_default_z_image_sigmas

    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=get_default_z_image_sigmas(steps))
    torch.testing.assert_close(sigmas(steps, shift), scheduler.sigmas, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shift", [1, 3, 6])
@pytest.mark.parametrize("strength", [0.05, 0.3, 0.7, 1.0])
def test_strength_is_the_noise_level_a_run_starts_from(shift, strength):
    levels = sigmas(8, shift, strength)
    assert levels[0] == pytest.approx(strength, abs=1e-6)
    assert len(levels) == 9 and levels[-1] == 0
    assert (levels.diff() < 0).all()
    # design, 3.2: s_i = shifted(u0 (1 - i/N)), u0 = s / (shift - (shift - 1) s)
    u = strength / (shift - (shift - 1) * strength) * (1 - torch.arange(9) / 8)
    torch.testing.assert_close(levels, shift * u / (1 + (shift - 1) * u), rtol=0, atol=1e-6)


def test_strength_0_is_no_step_at_all():
    assert sigmas(8, 3, 0).tolist() == [0.0]


@pytest.mark.parametrize("arguments, word", [((0, 3), "steps"), ((8, 0), "shift"), ((8, 3, 1.5), "strength")])
def test_impossible_schedules_are_refused(arguments, word):
    with pytest.raises(ValueError, match=word):
        sigmas(*arguments)
