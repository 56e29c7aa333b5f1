"""Noise levels against the reference's published tables, diffusers, and the definition of strength."""

from __future__ import annotations

import json

import pytest
import torch
from oracles import DATA

from zimage_core import sigmas

# As FlowMatchEulerDiscreteScheduler of diffusers 0.42.1 gives them, rounded to six decimals.
GOLDEN = json.loads((DATA / "sigmas.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("shift, steps", [(shift, steps) for shift in (3, 6) for steps in (4, 8, 28, 50)])
def test_golden_tables(shift, steps):
    golden = torch.tensor(GOLDEN[f"shift {shift}, {steps} steps"])
    torch.testing.assert_close(sigmas(steps, shift), golden, rtol=0, atol=1e-6)


def test_the_best_known_table():
    published = [1, 0.954545, 0.9, 0.833333, 0.75, 0.642857, 0.5, 0.3, 0]
    torch.testing.assert_close(sigmas(8, 3), torch.tensor(published), rtol=0, atol=1e-6)


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
