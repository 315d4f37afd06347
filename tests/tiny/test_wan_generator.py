"""A whole Wan generation, tiny and on the CPU: seeds, chunks, lengths, windows, sizes, lead-in, cancelling and going on."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from wan_tiny import cut, frames_of, tiny_clip, tiny_parts, tiny_transformer

from ex4d.conditioning.condition import ConditionRule, erode, make_condition
from ex4d.errors import Cancelled, InputError
from ex4d.generators.diffusion.borrow import encoder_device, on_device
from ex4d.generators.diffusion.generator import WanGenerator, WanSettings
from ex4d.generators.diffusion.memory import Work
from ex4d.generators.diffusion.observed import alignment, feathered, paste_observed
from ex4d.generators.diffusion.parts import Lazy
from ex4d.generators.diffusion.windows import WindowRule, cross_fade, fade_weights
from ex4d.models.wan.text import TextEmbeddings
from ex4d.pixels.sizing import plan_size


@pytest.fixture(scope="module")
def parts():
    parts = tiny_parts()
    for part in (parts.transformer, parts.vae, parts.geometry_encoder, parts.image_encoder):
        part.get()
    return parts


def test_one_seed_gives_one_video_however_it_is_cut(parts):
    generator = WanGenerator(parts)
    clip = tiny_clip(9)
    first = frames_of(generator, [clip], seed=3)
    assert first.shape == clip.color.shape and first.dtype == np.uint8
    np.testing.assert_array_equal(frames_of(generator, cut(clip, 4), seed=3), first)
    assert (frames_of(generator, [clip], seed=4) != first).mean() > 0.1
    record = generator.manifest()
    assert record["seed"] == 4 and record["windows"] == 1 and record["frames"] == 9
    assert 0 < record["alignments"][0]["observed_share"] <= 1 and "denoise" in record["seconds"]
    assert record["image_tower"] == ["cpu"]


def test_the_image_tower_visits_the_gpu_only_before_the_denoiser():
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    assert encoder_device(cuda, cpu, denoiser_there=False) == cuda
    assert encoder_device(cuda, cpu, denoiser_there=True) == cpu == encoder_device(cpu, cpu, denoiser_there=False)
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3)).eval()
    home = [t.data_ptr() for t in (*module.parameters(), *module.buffers())]
    with pytest.raises(RuntimeError), on_device(module, torch.device("meta")):
        assert all(t.is_meta for t in (*module.parameters(), *module.buffers()))
        raise RuntimeError
    assert [t.data_ptr() for t in (*module.parameters(), *module.buffers())] == home


@pytest.mark.parametrize("length", [1, 2, 6])
def test_any_length_is_padded_and_trimmed(parts, length):
    assert len(frames_of(WanGenerator(parts), [tiny_clip(length)])) == length


def test_long_clips_go_through_overlapping_windows(parts):
    clip = tiny_clip(20)
    generator = WanGenerator(replace(parts, max_frames=9), WanSettings(overlap=3))
    seen = []
    frames = frames_of(generator, cut(clip, 7), progress=lambda done, total, what: seen.append(what))
    assert len(frames) == 20 and generator.manifest()["windows"] == 3
    assert "denoising window 3" in seen
    np.testing.assert_array_equal(frames, frames_of(generator, cut(clip, 64)))
    alone = frames_of(generator, [tiny_clip(9)])
    np.testing.assert_array_equal(frames[:6], alone[:6])


@given(st.integers(1, 400), st.integers(2, 81), st.data())
def test_windows_cover_every_frame_and_overlap(num_frames, size, data):
    rule = WindowRule(size, data.draw(st.integers(1, size - 1)))
    spans = rule.spans(num_frames)
    assert spans[0][0] == 0 and spans[-1][1] == num_frames
    assert all(0 < stop - start <= size for start, stop in spans)
    assert all(b[0] == a[1] - rule.overlap and b[1] > a[1] for a, b in zip(spans, spans[1:], strict=False))


def test_cross_fade_stays_between_its_ends():
    old, new = np.full((5, 2, 2, 3), 10, np.uint8), np.full((5, 2, 2, 3), 250, np.uint8)
    faded = cross_fade(old, new)[:, 0, 0, 0]
    assert (np.diff(faded.astype(int)) > 0).all() and 10 < faded[0] and faded[-1] < 250
    weights = fade_weights(5)
    np.testing.assert_allclose(weights + weights[::-1], 1)


def test_cancel_stops_at_once_and_the_state_goes_on_from_there(parts, tmp_path):
    clip, steps = tiny_clip(5), 4
    whole = frames_of(WanGenerator(parts, WanSettings(steps=steps)), [clip], seed=1)
    calls = []

    def stop_after_two(done, total, what):
        if what.startswith("denoising"):
            calls.append(done)
            if done == 2:
                raise Cancelled("stopped")

    resumable = WanSettings(steps=steps, state_dir=tmp_path / "state")
    with pytest.raises(Cancelled):
        frames_of(WanGenerator(parts, resumable), [clip], seed=1, progress=stop_after_two)
    assert calls == [0, 1, 2]
    assert [p.suffix for p in (tmp_path / "state").iterdir()] == [".safetensors"], "one whole file, no half-written one"
    again = []
    frames = frames_of(
        WanGenerator(parts, resumable),
        [clip],
        seed=1,
        progress=lambda done, total, what: again.append(done) if what.startswith("denoising") else None,
    )
    assert again == [2, 3, 4], "the steps already done are not repeated"
    np.testing.assert_array_equal(frames, whole)
    other = frames_of(WanGenerator(parts, resumable), [tiny_clip(5, seed=9)], seed=1)
    assert (other != whole).any(), "another clip must not resume this one"
    assert not (tmp_path / "state").exists(), "a finished clip leaves no state behind"


def test_guidance_modes_agree_and_guidance_one_needs_no_negative(parts):
    clip = tiny_clip(5)
    one = frames_of(WanGenerator(parts), [clip]).astype(int)
    both = frames_of(WanGenerator(parts, WanSettings(guidance_mode="batched")), [clip]).astype(int)
    assert np.abs(one - both).max() <= 1
    positive = TextEmbeddings(parts.text.get().positive, None)
    unguided = frames_of(WanGenerator(parts, WanSettings(guidance=1.0)), [clip])
    alone = frames_of(WanGenerator(replace(parts, text=Lazy.of(positive)), WanSettings(guidance=5.0)), [clip])
    np.testing.assert_array_equal(unguided, alone)
    assert np.abs(unguided.astype(int) - one).max() > 1


def test_a_path_that_does_not_start_at_the_source_is_warned_about(parts):
    generator = WanGenerator(parts, WanSettings(lead_in=2))
    with pytest.warns(UserWarning, match="--lead-in"):
        frames = frames_of(generator, [tiny_clip(9, start=0.5)])
    assert len(frames) == 7, "the lead-in is cut off"
    assert any("clean first frame" in note for note in generator.notes())
    assert not WanGenerator(parts).notes()


def test_frame_0_of_a_path_from_the_source_is_the_source(parts):
    clip = tiny_clip(5)
    holes = clip.mask.copy()
    holes[0, :4] = False
    color = clip.color.copy()
    color[0, :4] = 0
    np.testing.assert_array_equal(
        frames_of(WanGenerator(parts), [replace(clip, mask=holes, color=color)]), frames_of(WanGenerator(parts), [clip])
    )


def test_seen_pixels_come_back_when_asked(parts):
    clip = tiny_clip(5)
    pasted = frames_of(WanGenerator(parts, WanSettings(observed="paste", erosion_px=3)), [clip])
    np.testing.assert_array_equal(pasted[0], clip.source.frames[0])
    seen = erode(clip.mask.astype(np.uint8) * 255, [3] * 5)[4] > 127
    inside = feathered(seen) == 1
    assert inside.any()
    np.testing.assert_array_equal(pasted[4][inside], clip.color[4][inside])
    far = ~clip.mask[4]
    plain = frames_of(WanGenerator(parts, WanSettings(erosion_px=3)), [clip])
    np.testing.assert_array_equal(pasted[4][far], plain[4][far])


def test_alignment_notices_a_shift():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (2, 16, 24, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    seen = np.ones(base.shape[:3], bool)
    same, moved = alignment(base, base, seen), alignment(np.roll(base, 3, axis=2), base, seen)
    assert same.psnr_db == 99.0 and same.shift_px < 0.1
    assert moved.psnr_db < 20 and abs(moved.shift_px - 3) < 0.5
    half = seen.copy()
    half[:, :, 48:] = False
    out = paste_observed(np.zeros_like(base), base, half, 4)
    assert (out[:, :, 52:] == 0).all() and (out[:, :, :40] == base[:, :, :40]).all()


@pytest.mark.parametrize(("mode", "out_hw"), [("crop", (32, 32)), ("pad", (32, 48)), ("fit", (32, 48))])
def test_other_sizes_keep_their_aspect(parts, mode, out_hw):
    clip = tiny_clip(1, size_hw=(40, 60))
    frames = frames_of(WanGenerator(parts, WanSettings(size_hw=(32, 32 if mode == "crop" else 64), fit=mode)), [clip])
    assert frames.shape[1:3] == (out_hw if mode != "fit" else frames.shape[1:3])
    assert abs(frames.shape[2] / frames.shape[1] - (1.0 if mode == "crop" else 1.5)) < 0.3


@settings(max_examples=60)
@given(
    st.tuples(st.integers(20, 300), st.integers(20, 300)),
    st.one_of(st.none(), st.tuples(st.integers(1, 12), st.integers(1, 12))),
    st.sampled_from(["crop", "pad", "fit"]),
)
def test_sizes_are_whole_tokens_and_never_squashed(size_hw, wanted, mode):
    wanted_hw = None if wanted is None else (16 * wanted[0], 16 * wanted[1])
    plan = plan_size(size_hw, wanted_hw, mode)
    assert plan.target_hw[0] % 16 == 0 and plan.target_hw[1] % 16 == 0
    scale_h, scale_w = (scaled / size for scaled, size in zip(plan.scaled_hw, size_hw, strict=True))
    slack = 1 / min(plan.scaled_hw)
    assert abs(scale_h / scale_w - 1) < 2 * slack + 1e-9 or min(plan.scaled_hw) == 16
    frame = np.full((1, *size_hw, 3), 200, np.uint8)
    placed = plan.frames(frame)
    assert placed.shape[1:3] == plan.target_hw
    if mode == "pad":
        assert plan.restore(placed).min() == 200, "the padding is cut off again"
    else:
        assert placed.min() == 200


def test_erosion_is_seeded_and_of_the_released_sizes():
    rule = ConditionRule()
    kernels = rule.kernels(400, 5)
    assert kernels == rule.kernels(400, 5) != rule.kernels(400, 6)
    assert set(kernels) == set(range(2, 9))
    assert ConditionRule(erosion_px=5).kernels(3, 0) == [5, 5, 5]
    full = np.full((1, 8, 8), 255, np.uint8)
    assert (erode(full, [8]) == 255).all(), "the picture's edge never erodes"
    spot = full.copy()
    spot[0, 4, 4] = 0
    assert (erode(spot, [2])[0] == 0).sum() == 4


def test_conditions_are_black_and_minus_one_where_unknown():
    color = np.full((2, 4, 4, 3), 255, np.uint8)
    mask = np.zeros((2, 4, 4), np.uint8)
    mask[:, :2] = 255
    condition = make_condition(color, mask)
    assert condition.color.shape == condition.mask.shape == (1, 3, 2, 4, 4)
    assert (condition.color[..., :2, :] == 1).all() and (condition.color[..., 2:, :] == -1).all()
    assert torch.equal(condition.mask, condition.color)
    shown = make_condition(color, mask, ConditionRule(blackout=False))
    assert (shown.color == 1).all() and torch.equal(shown.mask, condition.mask)


def test_other_denoisers_need_only_other_parts(parts):
    """No image tokens, no image condition, text of any length: what a small embedded model may lack."""
    bare = {"image_dim": None, "added_kv_proj_dim": None, "in_channels": 16}
    plain = replace(
        parts,
        transformer=Lazy(lambda: tiny_transformer(**bare)),
        image_encoder=None,
        text_tokens=None,
        default_guidance=1.0,
        default_steps=1,
        mask_affine=(1.0, 0.0),
    )
    assert frames_of(WanGenerator(plain), [tiny_clip(5)]).shape == (5, 32, 48, 3)
    late = replace(
        parts,
        first_frame=False,
        image_encoder=None,
        transformer=Lazy(lambda: tiny_transformer(image_dim=None, added_kv_proj_dim=None)),
    )
    assert len(frames_of(WanGenerator(late), [tiny_clip(5)])) == 5


def test_parts_are_prepared_for_the_clip_that_is_there(parts):
    asked = []

    def prepare(own, work):
        asked.append(work)
        return replace(own, batched_guidance=True, manifest={"plan": "a plan"})

    generator = WanGenerator(replace(parts, prepare=prepare))
    frames_of(generator, [tiny_clip(6)])
    assert asked == [Work(9, (32, 48), 2, True)]
    assert generator.denoise_settings.mode == "batched" and generator.notes() == ["a plan"]


def with_mask(clip, mask):
    """A clip that no caller should make, past the type checker."""
    bad = copy(clip)
    object.__setattr__(bad, "mask", mask)
    return bad


def test_what_cannot_be_is_refused_in_one_line(parts):
    clip = tiny_clip(5)
    bad = [
        (lambda: WanSettings(erosion_px=0).rule(), "erosion"),
        (lambda: WanGenerator(parts, WanSettings(steps=0)), "steps"),
        (lambda: WanGenerator(parts, WanSettings(lead_in=-1)), "lead-in"),
        (lambda: frames_of(WanGenerator(parts, WanSettings(window=8)), [clip]), "4k \\+ 1"),
        (lambda: frames_of(WanGenerator(parts, WanSettings(size_hw=(30, 48))), [clip]), "divisible by 16"),
        (lambda: frames_of(WanGenerator(parts, WanSettings(fit="exact")), [tiny_clip(1, (40, 48))]), "--fit"),
        (lambda: frames_of(WanGenerator(parts), [with_mask(clip, clip.mask[:3])]), "5 colour frames but 3 mask"),
        (lambda: frames_of(WanGenerator(parts), [with_mask(clip, clip.mask[:, :16])]), "same size"),
        (lambda: frames_of(WanGenerator(parts), []), "without frames"),
    ]
    for call, words in bad:
        with pytest.raises(InputError, match=words) as error:
            call()
        assert "\n" not in str(error.value)
