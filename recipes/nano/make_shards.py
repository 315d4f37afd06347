"""Encode training pairs with the trained autoencoder into the shards that `ex4d train run` reads.

    python recipes/nano/make_shards.py --pairs PAIRS --autoencoder runs/ae/autoencoder --out SHARDS

The condition is the classical fill of the render (not black holes) and its mask: the small model refines a first guess.
"""

from __future__ import annotations

import argparse
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ex4d.models.nano.autoencoder import VideoAutoencoder
from ex4d.train.data.shards import ShardWriter
from ex4d.train.mixture import KINDS

#: Samples a shard holds.
SHARD = 64


def load_samples(path: Path) -> Iterator[tuple[str, str, np.ndarray, np.ndarray, np.ndarray]]:
    """(key, kind, target, filled, mask) of every example in a pair file."""
    with np.load(path) as data:
        mask = np.unpackbits(data["mask"], axis=-1).astype(bool)
        real = path.stem.startswith("r")
        yield path.stem, "transplanted" if real else "view", data["target"], data["filled"], mask
        if "filled_source" in data:
            yield f"{path.stem}s", "transplanted", data["color"], data["filled_source"], mask


def prefetch(paths: list[Path], threads: int = 6) -> Iterator[tuple]:
    """Samples, read ahead."""
    todo: queue.Queue = queue.Queue()
    done: queue.Queue = queue.Queue(4 * threads)
    for path in paths:
        todo.put(path)

    def work() -> None:
        while True:
            try:
                path = todo.get_nowait()
            except queue.Empty:
                done.put(None)
                return
            for sample in load_samples(path):
                done.put(sample)

    for _ in range(threads):
        threading.Thread(target=work, daemon=True).start()
    ended = 0
    while ended < threads:
        item = done.get()
        if item is None:
            ended += 1
        else:
            yield item


class Encoder:
    """Normalised latents of videos, through a trained autoencoder."""

    def __init__(self, autoencoder: Path, device: str) -> None:
        self.device = device
        self.vae = VideoAutoencoder.from_pretrained(autoencoder, torch_dtype=torch.float32).to(device).eval()
        self.mean = torch.tensor(self.vae.config["latents_mean"], device=device).view(1, -1, 1, 1, 1)
        self.std = torch.tensor(self.vae.config["latents_std"], device=device).view(1, -1, 1, 1, 1)

    @torch.no_grad()
    def __call__(self, video: torch.Tensor) -> torch.Tensor:
        """[1, 3, T, H, W] in [-1, 1] to [1, 16, t, h, w]."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            z = self.vae.encode(video).latent_dist.mode()
        return (z.float() - self.mean) / self.std

    def example(self, target: np.ndarray, filled: np.ndarray, mask: np.ndarray) -> dict[str, torch.Tensor]:
        """Latents of the truth, of its first frame as the condition shows it, of the condition and of the mask; the hole share.

        Args:
            target, filled: uint8 [T, H, W, 3].
            mask: bool [T, H, W], True where seen.
        """
        x, cond = (
            torch.from_numpy(v).to(self.device).float().div(127.5).sub(1).permute(3, 0, 1, 2)[None]
            for v in (target, filled)
        )
        seen = torch.from_numpy(mask).to(self.device).float()
        first = torch.zeros_like(cond)
        first[:, :, 0] = cond[:, :, 0]
        videos = {"latents": x, "image_latents": first, "color_latents": cond}
        videos["mask_latents"] = (2 * seen - 1)[None, None].expand(1, 3, -1, -1, -1)
        unseen = 1 - seen
        groups = torch.cat([unseen[:1], unseen[1:].unflatten(0, (-1, 4)).mean(1)])
        return {name: self(video) for name, video in videos.items()} | {"hole": F.avg_pool2d(groups[None], 8)}


def pair_files(folder: Path) -> list[Path]:
    """Finished pairs, scenes before real windows."""
    return sorted([*folder.glob("[0-9]*.npz"), *folder.glob("r[0-9]*.npz")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--autoencoder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", default="0/1", help="K/N: every N-th file from the K-th")
    args = parser.parse_args()
    encoder = Encoder(args.autoencoder, "cuda" if torch.cuda.is_available() else "cpu")
    part, parts = (int(x) for x in args.part.split("/"))
    begin, count, writer = time.time(), 0, None
    args.out.mkdir(parents=True, exist_ok=True)
    for key, kind, target, filled, mask in prefetch(pair_files(args.pairs)[part::parts]):
        if writer is None:
            shard = ShardWriter(args.out / f"{part:02d}-{count // SHARD:05d}.tar")
            writer = shard.__enter__()
        z = {name: v[0].half().cpu().numpy() for name, v in encoder.example(target, filled, mask).items()}
        writer.write(
            key,
            {
                "latents": z["latents"],
                "image_latents": z["image_latents"],
                "text": np.zeros((1, 16), np.float16),
                "color_latents": z["color_latents"][None],
                "mask_latents": z["mask_latents"][None],
                "hole": np.rint(z["hole"].astype(np.float32) * 255).astype(np.uint8)[None],
                "kind": np.array([KINDS.index(kind)], np.uint8),
                "coverage": np.array([float(mask.mean())], np.float32),
            },
            {"source": key.rstrip("s")},
        )
        count += 1
        if count % SHARD == 0:
            shard.__exit__(None, None, None)
            writer = None
            print(f"{count} samples, {time.time() - begin:.0f} s", flush=True)
    if writer is not None:
        shard.__exit__(None, None, None)
    print(f"{count} samples, {time.time() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
