"""The embedded model with tiny random weights: sizes, lengths, windows, what stays untouched, the whole line, refusals."""

import json
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from nano_made import publish, tiny_autoencoder, trained

from ex4d.cli.main import main
from ex4d.errors import Cancelled
from ex4d.generators.nano.generator import LEVELS, OVERLAP_FRAMES, WINDOW_FRAMES, Nano, nano_parts, small_size
from ex4d.io.depth.file import write_depth
from ex4d.io.video.read import VideoWriter, read_video
from ex4d.models.depth.nano import ClipDepthNetwork
from ex4d.models.embedded import load as embedded
from ex4d.pipeline.config import RenderOptions, RunConfig
from ex4d.pipeline.line import generate, reconstruct
from ex4d.pipeline.run import run_stages
from ex4d.types import CameraPath, DepthClip, RenderClip, VideoClip

EMBEDDED = embedded.FOLDER


@pytest.fixture(scope="module")
def autoencoder():
    return tiny_autoencoder()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder as the package has it."""
    folder = tmp_path_factory.mktemp("nano")
    publish(folder / "out", **trained(folder / "trained"))
    return folder / "out"


@pytest.fixture(scope="module")
def parts(published):
    return nano_parts(published)


@pytest.fixture
def embed(published, monkeypatch):
    """The package with these weights in it."""
    monkeypatch.setattr(embedded, "FOLDER", published)


def clip_and_depth(frames=6, h=50, w=72):
    rng = np.random.default_rng(0)
    video = VideoClip(rng.integers(0, 255, (frames, h, w, 3)).astype(np.uint8), Fraction(25))
    K = np.tile(np.array([[w, 0, w / 2], [0, w, h / 2], [0, 0, 1]], np.float32), (frames, 1, 1))
    depth = np.full((frames, h, w), 5, np.float32)
    depth[:, h // 3 : 2 * h // 3, w // 4 : w // 2] = 2
    return video, DepthClip(depth, K)


def render(frames=6, h=50, w=72, camera="orbit:35"):
    video, depth = clip_and_depth(frames, h, w)
    return reconstruct(video, depth, camera, RenderOptions(rasterizer="cpu", plate=False))


def still_scene(frames, h=32, w=32):
    """A render that never changes, with one hole: whatever moves in the result comes from the generator."""
    rng = np.random.default_rng(3)
    color = np.repeat(np.kron(rng.integers(40, 220, (1, h // 8, w // 8, 3)), np.ones((1, 8, 8, 1))), frames, axis=0)
    mask = np.ones((frames, h, w), bool)
    mask[:, 8:24, 8:24] = False
    K = np.tile(np.array([[w, 0, w / 2], [0, w, h / 2], [0, 0, 1]], np.float32), (frames, 1, 1))
    path = CameraPath(np.tile(np.eye(4), (frames, 1, 1)), K, (h, w), np.arange(frames, dtype=np.float64))
    color = color.astype(np.uint8) * mask[..., None]
    return RenderClip(color, mask, np.ones(mask.shape, np.float32), path, VideoClip(color, Fraction(25)), Fraction(25))


def made(clip, chunk=None, seed=0, progress=None, **options):
    """Frames of a generator run over chunks of a clip."""
    step = chunk or len(clip)
    chunks = (clip[start : start + step] for start in range(0, len(clip), step))
    return np.concatenate([part.frames for part in Nano(**options).generate(chunks, seed=seed, progress=progress)])


def test_observed_pixels_keep_their_full_resolution(parts):
    clip = render()
    frames = made(clip, chunk=4, quality="draft", parts=parts, seed=1)
    assert frames.shape == clip.color.shape and not clip.mask.all()
    np.testing.assert_array_equal(frames[clip.mask], clip.color[clip.mask])
    np.testing.assert_array_equal(made(clip, quality="draft", parts=parts, seed=1), frames)


def test_detail_changes_only_what_was_not_seen_and_chunks_do_not_matter(parts, monkeypatch):
    clip = render(20, 64, 96)
    with_detail = made(clip, parts=parts)
    np.testing.assert_array_equal(made(clip, chunk=7, parts=parts), with_detail)
    monkeypatch.setitem(LEVELS, "default", replace(LEVELS["default"], detail=0.0))
    changed = (with_detail != made(clip, parts=parts)).any(axis=-1)
    assert changed.any() and not (changed & clip.mask).any()


def test_what_other_times_of_the_clip_show_is_kept_too(parts):
    clip = render()
    shown = ~clip.mask & (np.arange(72) % 8 < 4)
    plate = np.random.default_rng(1).integers(0, 255, clip.color.shape).astype(np.uint8)
    clip = replace(clip, plate=plate, plate_mask=shown)
    assert shown.any() and (~clip.mask & ~shown).any()
    frames = made(clip, parts=parts)
    np.testing.assert_array_equal(frames[shown], plate[shown])


def test_another_seed_changes_only_what_was_not_seen(parts):
    clip = render()
    changed = (made(clip, parts=parts, seed=1) != made(clip, parts=parts, seed=2)).any(axis=-1)
    assert changed.any() and not (changed & clip.mask).any()


@pytest.mark.parametrize(
    ("size_hw", "expected"),
    [
        ((720, 1280), (256, 448)),
        ((1280, 720), (448, 256)),
        ((256, 256), (256, 256)),
        ((100, 90), (96, 96)),
        ((64, 64), (64, 64)),
        ((9, 7), (16, 16)),
        ((400, 4000), (128, 1248)),
    ],
)
def test_the_working_size_is_near_256_on_the_short_side(size_hw, expected):
    assert small_size(size_hw, 256) == expected


@pytest.mark.parametrize(
    ("frames", "h", "w"), [(1, 48, 32), (2, 32, 32), (4, 40, 64), (5, 17, 9), (50, 32, 32), (51, 16, 48)]
)
def test_any_length_and_any_size(parts, frames, h, w):
    clip = render(frames, h, w, "orbit:30" if frames > 1 else "orbit:yaw=30")
    out = made(clip, chunk=16, parts=parts, quality="draft")
    assert out.shape == clip.color.shape
    np.testing.assert_array_equal(out[clip.mask], clip.color[clip.mask])


def test_a_long_clip_has_no_seams(parts):
    """Three windows over a scene that stands still: no step between frames is larger where windows meet than elsewhere."""
    clip = still_scene(105)
    out = made(clip, chunk=16, parts=parts, seed=4).astype(float)
    steps = np.array([np.abs(b - a).mean() for a, b in pairwise(out)])
    meets = {40 * k + offset for k in (1, 2) for offset in range(-1, OVERLAP_FRAMES + 1)}
    inside = [step for t, step in enumerate(steps) if t not in meets]
    assert steps[sorted(meets)].max() <= 1.5 * max(inside) + 0.1


def test_windows_share_the_noise_of_the_frames_they_share(parts):
    from ex4d.generators.diffusion.generator import WanGenerator, WanSettings

    generator = WanGenerator(parts, WanSettings(window=WINDOW_FRAMES, overlap=OVERLAP_FRAMES, shared_noise=True))
    shape = (1, 4, 13, 2, 2)
    first, second = (generator._noise(shape, 0, number) for number in (0, 1))
    torch.testing.assert_close(second[:, :, :3], first[:, :, 10:])
    assert not torch.equal(second[:, :, 3], first[:, :, 3])


def test_little_waits_in_memory_however_long_the_clip_is(parts):
    """A window is generated as soon as its frames are there: chunks are not read far ahead of what is handed on."""
    clip, read, ahead = still_scene(180), 0, []

    def chunks():
        nonlocal read
        for start in range(0, len(clip), 10):
            read += 10
            yield clip[start : start + 10]

    handed_on = 0
    for part in Nano("draft", parts=parts).generate(chunks()):
        ahead.append(read - handed_on)
        handed_on += len(part)
    assert handed_on == 180 and max(ahead) <= WINDOW_FRAMES + 2 * 10


def test_progress_counts_frames_and_may_stop(parts):
    seen = []
    clip = still_scene(60)
    made(clip, parts=parts, chunk=20, progress=lambda done, total, what: seen.append((done, what)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen) and seen[-1] == (60, "nano")
    assert {what for _, what in seen} == {"nano"} and seen[0][0] == 0

    def stop(done, total, what):
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        made(clip, parts=parts, progress=stop)


@pytest.fixture
def files(tmp_path):
    video, depth = clip_and_depth(6, 64, 64)
    with VideoWriter(tmp_path / "in.mkv", Fraction(25), lossless=True) as writer:
        writer.write(video.frames)
    write_depth(tmp_path / "d.npz", depth, Fraction(25))
    return tmp_path


def run(files, *more):
    return main(["run", str(files / "in.mkv"), "--depth", str(files / "d.npz"), "--out", str(files / "out"), *more])


def test_the_embedded_model_is_the_default_and_its_quality_decides_what_is_kept(files, embed, capsys):
    assert run(files) == 0
    record = json.loads((files / "out" / "manifest.json").read_text())
    assert record["config"]["preset"] == "nano" and record["generate"]["quality"] == "default"
    assert record["generate"]["parts"]["weights"] == embedded.hashes()
    assert read_video(files / "out" / "output.mp4").frames.shape == (6, 64, 64, 3)
    assert not (files / "out" / ".latents").exists()
    capsys.readouterr()
    assert run(files, "--preset", "nano", "--quality", "default") == 0
    assert "generate kept" in capsys.readouterr().out
    assert run(files, "--quality", "best") == 0
    assert "render kept, generate kept" not in capsys.readouterr().out
    record = json.loads((files / "out" / "manifest.json").read_text())
    assert record["generate"]["quality"] == "best" and record["generate"]["settings"]["steps"] == 8


def test_generate_completes_a_render_folder_in_a_given_quality(files, embed):
    args = [str(files / "in.mkv"), "--depth", str(files / "d.npz"), "--out", str(files / "r")]
    assert main(["render", *args]) == 0
    assert main(["generate", str(files / "r"), "--quality", "draft"]) == 0
    record = json.loads((files / "r" / "generate.json").read_text())
    assert record["config"]["preset"] == "nano" and record["generate"]["quality"] == "draft"


def test_other_weights_are_another_result(files, embed, published, tmp_path, monkeypatch, capsys):
    config = RunConfig(files / "out", depth=str(files / "d.npz"), frames=2)
    assert config.preset == "nano"
    run_stages(files / "in.mkv", config)
    assert run_stages(files / "in.mkv", config).seconds["generate"] == 0
    monkeypatch.setattr("ex4d.pipeline.run.weights_of", lambda _: {"adapter": "newer"})
    assert run_stages(files / "in.mkv", config).seconds["generate"] > 0


def test_a_stopped_run_leaves_no_output_and_goes_on_from_its_latents(files, embed):
    config = RunConfig(files / "out", depth=str(files / "d.npz"), generator={"state_dir": files / "out" / ".latents"})

    def stop(done, total, what):
        if what == "nano" and done >= 4:  # denoised, not yet decoded
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        run_stages(files / "in.mkv", config, progress=stop)
    assert not (files / "out" / "output.mp4").exists() and len(list((files / "out" / ".latents").iterdir())) == 1
    run_stages(files / "in.mkv", config)
    assert (files / "out" / "output.mp4").is_file() and not (files / "out" / ".latents").exists()


def test_the_library_takes_the_embedded_model_too(embed, monkeypatch, tmp_path):
    clip = still_scene(3)
    np.testing.assert_array_equal(generate(clip).frames, made(clip))
    monkeypatch.setattr(embedded, "FOLDER", tmp_path)
    np.testing.assert_array_equal(generate(clip).frames, generate(clip, "fill").frames)


@pytest.mark.skipif(not (EMBEDDED / "hashes.json").is_file(), reason="a checkout without the embedded weights")
def test_the_shipped_weights_are_the_published_ones_and_load_strictly(tmp_path):
    parts = {
        "autoencoder": EMBEDDED / "autoencoder",
        "transformer": EMBEDDED / "transformer",
        "adapter": EMBEDDED / "adapter" / "adapter.safetensors",
    }
    publish(tmp_path / "out", **parts)
    again = json.loads((tmp_path / "out" / "hashes.json").read_text())
    shipped = json.loads((EMBEDDED / "hashes.json").read_text())
    assert {name: shipped[name] for name in again} == again
    assert embedded.check(EMBEDDED) >= len(again)


def test_the_autoencoder_has_wans_shapes_and_its_groups_look_back_only(autoencoder):
    x = torch.rand(1, 3, 9, 32, 24) * 2 - 1
    z = autoencoder.encode(x).latent_dist.mode()
    assert z.shape == (1, 4, 3, 4, 3) and autoencoder.decode(z).sample.shape == x.shape
    torch.testing.assert_close(autoencoder.encode(x[:, :, :5]).latent_dist.mode(), z[:, :, :2])
    for mix in autoencoder.dec_time:
        torch.nn.init.normal_(mix.out.weight, std=0.1)
    torch.testing.assert_close(autoencoder.decode(z[:, :, :2]).sample, autoencoder.decode(z).sample[:, :, :5])
    with pytest.raises(ValueError, match="4k\\+1"):
        autoencoder.encode(x[:, :, :8])


def test_the_depth_network_gives_positive_disparity_of_every_frame():
    torch.manual_seed(0)
    network = ClipDepthNetwork((8, 16, 32), (1, 1, 1), (1, 1), heads=2).eval()
    with torch.no_grad():
        out = network(torch.rand(2, 3, 3, 32, 64))
    assert out.shape == (2, 3, 32, 64) and out.dtype == torch.float32 and (out > 0).all()
    with pytest.raises(ValueError, match="divisible by 32"):
        network(torch.rand(1, 3, 1, 32, 40))


@torch.no_grad()
def test_groups_that_repeat_are_encoded_once_and_alike(autoencoder):
    x = torch.zeros(1, 3, 17, 32, 24)
    x[:, :, 0], x[:, :, 9:] = torch.rand(3, 32, 24), torch.rand(3, 8, 32, 24)
    seen = []
    hook = autoencoder.enc[0].register_forward_hook(lambda _m, args, _out: seen.append(len(args[0])))
    short = autoencoder.encode(x).latent_dist.mode()
    hook.remove()
    assert seen == [4], "of five groups, two are grey"
    with torch.enable_grad():
        whole = autoencoder.encode(x).latent_dist.mode()
    torch.testing.assert_close(short, whole)
    assert torch.equal(short[:, :, 1], short[:, :, 2])
