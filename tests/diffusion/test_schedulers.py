"""Every scheduler that is offered samples an exactly known model right, from pure noise and from a source under noise."""

from functools import partial
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler

from apa_lightning.backbones.architectures import new_scheduler
from apa_lightning.diffusion.objectives import DenoisingObjective
from apa_lightning.diffusion.sampling import denoise, with_progress
from apa_lightning.diffusion.schedulers import SCHEDULERS, make_scheduler, steps_run, timesteps_run, usable
from apa_lightning.editing.defaults import EditDefaults
from apa_lightning.errors import InputError
from apa_lightning.utils.rng import generator_for

ROOT = Path(__file__).parents[2]
MEAN, STD = 0.5, 0.5
ITEMS = 4000
BACKBONES = {
    "AudioLDM2's": new_scheduler(),
    "v_prediction": DDIMScheduler.from_config(new_scheduler().config, prediction_type="v_prediction"),
    "v_prediction, zero terminal SNR": DDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, clip_sample=False
    ),
}
OFFERED = [(name, schedule) for schedule, trained in BACKBONES.items() for name in usable(trained)]
UNLIKE = [(name, schedule) for name, schedule in OFFERED if schedule != "v_prediction"]


def level(trained, time) -> tuple[float, float]:
    """Factors of signal and noise at a time, which some schedulers place between two timesteps."""
    kept = trained.alphas_cumprod.double().clamp(min=1e-12)
    below = int(time)
    sigmas = ((1 - kept) / kept).sqrt()[below : below + 2]
    sigma = torch.lerp(sigmas[0], sigmas[-1], float(time) - below)
    signal = (1 + sigma**2).rsqrt()
    return float(signal), float(sigma * signal)


def exact(trained, latents, time):
    """What a perfect model predicts where the clean latents are normal with MEAN and STD."""
    signal, noise = level(trained, time)
    surprise = (latents - signal * MEAN) / (signal**2 * STD**2 + noise**2)
    epsilon, clean = noise * surprise, MEAN + signal * STD**2 * surprise
    return epsilon if trained.config.prediction_type == "epsilon" else signal * epsilon - noise * clean


def normal(seed: int) -> torch.Tensor:
    """Standard normal (ITEMS, 1, 2) whose mean and standard deviation are exact."""
    values = torch.randn(ITEMS, 1, 2, generator=torch.Generator().manual_seed(seed))
    return (values - values.mean()) / values.std()


def sampled(trained, scheduler, steps: int, strength: float) -> tuple[float, float]:
    """Mean of the result less the true one, and its standard deviation over the true one."""
    source = MEAN + STD * normal(1) if strength < 1 else None
    draw = torch.Generator().manual_seed(2)
    scheduler.set_timesteps(steps)
    result = denoise(partial(exact, trained), normal(0), scheduler, draw, None, source, strength)
    return float(result.mean()) - MEAN, float(result.std()) / STD


@pytest.mark.parametrize(("name", "schedule"), OFFERED)
def test_mean_and_deviation_are_the_models(name, schedule):
    trained = BACKBONES[schedule]
    scheduler = make_scheduler(trained, name)
    for strength in (1.0, 0.75, 0.3):
        mean, deviation = sampled(trained, scheduler, 50, strength)
        assert abs(mean) < 0.03 and 0.85 < deviation < 1.1, (strength, mean, deviation)


@pytest.mark.parametrize(("name", "schedule"), UNLIKE)
def test_few_steps_are_coarse_at_every_strength_alike(name, schedule):
    """The error is made near the end of the schedule, so that where an edit starts hardly matters."""
    trained = BACKBONES[schedule]
    scheduler = make_scheduler(trained, name)
    _, whole = sampled(trained, scheduler, 10, 1.0)
    assert 0.6 < whole < 1.45
    for strength in (0.75, 0.5, 0.3):
        mean, deviation = sampled(trained, scheduler, 10, strength)
        assert abs(mean) < 0.06 and abs(deviation - whole) < 0.12, (strength, mean, deviation)
    for steps in (1, 2, 3):  # too few for any likeness, but they can be made
        for strength in (1.0, 0.5):
            assert sampled(trained, scheduler, steps, strength)[1] < 200


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_what_is_kept_has_the_noise_of_each_call(name, spacing):
    """The model reads the kept half at exactly the level of its time, also in the middle of a step of higher order."""
    trained = DDIMScheduler.from_config(new_scheduler().config, timestep_spacing=spacing)
    clean, noise, errors = MEAN + STD * normal(1), normal(0), list[float]()

    def model(latents, time):
        signal, amount = level(trained, time)
        errors.append(float((latents - signal * clean - amount * noise)[..., 1].abs().max()))
        return exact(trained, latents, time)

    keep = clean, torch.tensor([0.0, 1.0]).view(1, 1, 2)
    scheduler = make_scheduler(trained, name, 6)
    for source, strength in ((None, 1.0), (clean, 0.5)):
        errors.clear()
        result = denoise(model, noise, scheduler, torch.Generator().manual_seed(2), keep, source, strength)
        assert max(errors[1 if source is None else 0 :]) < 0.02  # at the top of the schedule all is noise
        assert torch.equal(result[..., 1], clean[..., 1])
        scheduler.set_timesteps(6)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_call_is_made_at_the_level_of_its_time(name):
    """Where all clean latents are one point, no solver makes an error, and what the model reads has exactly its level's noise."""
    trained, levels = BACKBONES["AudioLDM2's"], []

    def model(latents, time):
        signal, noise = level(trained, time)
        levels.append((float(latents.std()), noise))
        return (latents - signal * MEAN) / noise

    scheduler = make_scheduler(trained, name, 8)
    point = torch.full((ITEMS, 1, 2), MEAN)
    result = denoise(model, normal(0), scheduler, torch.Generator().manual_seed(2), None, point, 0.75)
    assert all(found == pytest.approx(right, abs=0.02) for found, right in levels), levels
    assert (result - MEAN).abs().max() < 0.2


def test_the_share_of_steps_is_that_of_diffusers():
    for steps in (1, 2, 7, 50, 100):
        for strength in (0.05, 0.29, 0.5, 0.58, 0.75, 0.999, 1.0):
            assert steps_run(steps, strength) == max(1, min(int(steps * strength), steps))
    for name in ("DDIMScheduler", "HeunDiscreteScheduler", "DPMSolverMultistepScheduler"):
        scheduler = make_scheduler(new_scheduler(), name, 50)
        first = (50 - 37) * scheduler.order  # get_timesteps of diffusers' image-to-image pipelines
        assert torch.equal(timesteps_run(scheduler, 0.75), scheduler.timesteps[first:])


@pytest.mark.parametrize("kind", [diffusers.EulerDiscreteScheduler, diffusers.PNDMScheduler])
def test_a_backbone_may_bring_any_of_them(kind):
    """Folders are saved with other schedulers too, whose configurations know neither clipping nor velocities."""
    own = kind(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", prediction_type="v_prediction")
    assert usable(own) == sorted(SCHEDULERS)
    for name in ("DDIMScheduler", "DDPMScheduler", "HeunDiscreteScheduler", kind.__name__):
        mean, deviation = sampled(own, make_scheduler(own, name), 50, 0.5)
        assert abs(mean) < 0.03 and 0.85 < deviation < 1.1
    usual = DDIMScheduler.from_config(own.config)
    clean, (mine, its) = torch.randn(3, 2, 4, 5), (DenoisingObjective(one) for one in (own, usual))
    losses = [objective(lambda z, t: z, clean, generator_for(1))[0] for objective in (mine, its)]
    assert torch.equal(*losses)
    with pytest.raises(InputError, match="backbone: it predicts 'sample'"):
        DenoisingObjective(DDIMScheduler(prediction_type="sample"))


def test_pndm_starts_anew_without_runge_kutta_steps():
    whole = timesteps_run(make_scheduler(new_scheduler(), "PNDMScheduler", 50))
    assert len(whole) == 51
    part = timesteps_run(make_scheduler(new_scheduler(), "PNDMScheduler", 50), 0.5)
    assert part[:4].tolist() == [481, 461, 461, 441] and torch.equal(part[2:], whole[27:])


def test_the_backbones_own_class_is_offered_too():
    trained = diffusers.DDIMParallelScheduler.from_config(new_scheduler().config)
    assert usable(trained) == sorted([*SCHEDULERS, "DDIMParallelScheduler"])
    assert type(make_scheduler(trained, "DDIMParallelScheduler", 4)) is diffusers.DDIMParallelScheduler
    assert make_scheduler(PNDMScheduler(), "PNDMScheduler", 4).config.skip_prk_steps


def test_schedulers_that_ignore_the_noise_schedule_or_the_seed_are_refused():
    for name in ("EDMEulerScheduler", "DPMSolverSDEScheduler", "FlowMatchEulerDiscreteScheduler", "Magic"):
        with pytest.raises(InputError, match=f"scheduler: '{name}' is not usable .*choose one of DDIM.*, UniPC"):
            make_scheduler(BACKBONES["AudioLDM2's"], name)
    with pytest.raises(InputError, match="HeunDiscreteScheduler' is not usable"):  # it knows no zero terminal SNR
        make_scheduler(BACKBONES["v_prediction, zero terminal SNR"], "HeunDiscreteScheduler")


def test_help_and_docs_list_the_offered_ones():
    texts = (ROOT / "apa_lightning/editing/settings.py").read_text(), (ROOT / "docs/editing.md").read_text()
    for text in texts:
        named = {name for name in dir(diffusers) if name.endswith("Scheduler") and name in text}
        assert set(SCHEDULERS) <= named
    assert EditDefaults().of()["scheduler"] in SCHEDULERS


@pytest.mark.parametrize(("name", "schedule"), OFFERED)
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_progress_goes_from_0_to_1_with_every_scheduler(name, schedule, strength):
    """It never goes back, calls at one timestep share it, and steps are equally far apart, as far as timesteps are whole."""
    trained, told = BACKBONES[schedule], []
    timesteps = timesteps_run(make_scheduler(trained, name, 10), strength)
    scheduler, times = make_scheduler(trained, name, 10), []
    model = with_progress(lambda latents, time: times.append(float(time)) or latents, timesteps, told.append)
    noise = torch.zeros(1, 1, 2)
    denoise(model, noise, scheduler, [torch.Generator()], source=noise if strength < 1 else None, strength=strength)
    assert times == timesteps.tolist() and told[0] == 0 and told[-1] == 1
    shares = [round(share, 3) for share in told]
    assert shares == sorted(shares)
    assert sorted(set(shares)) == pytest.approx(
        torch.linspace(0, 1, len(set(shares))), abs=0.1 if "KDPM2" in name else 0.01
    )
