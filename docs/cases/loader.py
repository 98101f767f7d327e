#!/usr/bin/env python3
"""PyTorch's DataLoader over a folder of small JPEG files, and over the same files in one tar.

loader.py make DIR [IMAGES]             DIR/images/CLASS/NUMBER.jpg, and DIR/images.tar with its index
loader.py train folder|tar DIR WORKERS  two epochs, each with a checkpoint at its end, and what they took by its own clock
"""

from __future__ import annotations

import io
import os
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 40


def make(where: Path, images: int) -> None:
    random = np.random.default_rng(1)
    for number in range(images):
        pixels = Image.fromarray(random.integers(0, 255, (16, 16, 3), np.uint8)).resize((256, 256))
        path = where / "images" / f"{number % CLASSES:03}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels.save(path, quality=90)
    with tarfile.open(where / "images.tar", "w") as tar:
        tar.add(where / "images", "images")
    with tarfile.open(where / "images.tar") as tar:
        np.save(where / "index.npy", [(each.offset_data, each.size) for each in tar if each.isfile()])


class Images:
    """Decoded images by number. ``reading_s``: time spent to get their bytes, in this process."""

    def __init__(self) -> None:
        self.reading_s = 0.0

    def __getitem__(self, at: int) -> np.ndarray:
        began = time.perf_counter()
        data = self.read(at)
        self.reading_s += time.perf_counter() - began
        return np.array(Image.open(io.BytesIO(data)).convert("RGB"))

    def read(self, at: int) -> bytes:
        raise NotImplementedError


class Folder(Images):
    """As torchvision's ImageFolder: list the classes, then open a file for each image."""

    def __init__(self, where: Path) -> None:
        super().__init__()
        classes = sorted(each.path for each in os.scandir(where / "images") if each.is_dir())
        self.paths = [os.path.join(each, name) for each in classes for name in sorted(os.listdir(each))]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, at: int) -> bytes:
        with open(self.paths[at], "rb") as file:
            return file.read()


class Tar(Images):
    """The same images by their offsets in one tar, which each worker opens once."""

    def __init__(self, where: Path) -> None:
        super().__init__()
        self.tar, self.index, self.fd = where / "images.tar", np.load(where / "index.npy"), -1

    def __len__(self) -> int:
        return len(self.index)

    def read(self, at: int) -> bytes:
        if self.fd < 0:
            self.fd = os.open(self.tar, os.O_RDONLY)
        offset, size = self.index[at].tolist()
        return os.pread(self.fd, size, offset)


def train(data: Folder | Tar, where: Path, workers: int) -> None:
    import torch
    from torch.utils.data import DataLoader

    torch.manual_seed(1)
    torch.set_num_threads(1)
    model = torch.nn.Linear(3 * 256 * 256, CLASSES)
    loader: DataLoader = DataLoader(data, batch_size=64, shuffle=True, num_workers=workers)  # type: ignore[arg-type]
    for epoch in range(2):
        data.reading_s = waited = 0.0
        began, images = time.perf_counter(), 0
        batches = iter(loader)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - asked
            if batch is None:
                break
            model(batch.flatten(1).float() / 255).sum().backward()
            images += len(batch)
        torch.save(model.state_dict(), where / f"checkpoint-{epoch}.pt")
        took = time.perf_counter() - began
        print(
            f"epoch {epoch}: {images} images in {took:.2f} s, {waited:.2f} s of it waiting for them"
            f", {data.reading_s:.2f} s reading here",
            flush=True,
        )


if __name__ == "__main__":
    what, *words = sys.argv[1:]
    if what == "make":
        make(Path(words[0]), int(words[1]) if len(words) > 1 else 4000)
    else:
        train({"folder": Folder, "tar": Tar}[words[0]](Path(words[1])), Path(words[1]), int(words[2]))
