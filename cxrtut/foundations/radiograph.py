"""How real is the simulated radiograph? Two measurements against real NIH images.

1. *Image statistics*: grey levels, radial power spectrum, and how much two images have in common.
2. *Sim-to-real*: a classifier that has seen simulated images only is tested on real ones. What it
   recognises there, the simulation must have drawn well enough.

Reading of the result: the view (AP or PA) goes with the labels, differently in every sample of the
NIH collection, and so is a confounder; the table therefore has a column for PA images alone.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from cxrtut import __version__
from cxrtut.data.phantom import CLASSES, PRESETS, ChestPhantom, Preset
from cxrtut.data.sample import from_uint8
from cxrtut.data.store import ArrayStore, StoreError
from cxrtut.metrics.classification import auroc, hanley_standard_error
from cxrtut.nn.backbones import ResNet10
from cxrtut.randomness import generator

SEVERITIES = (1.0, 2.2)  # real images of a label show anything from subtle to severe disease
STRIDE = 16  # of the classifier's last feature map
MAX_SLOPE = 110  # cycles per image up to which the spectrum is fitted
SPECTRUM_FREQUENCIES = (2, 4, 8, 16, 32, 64, 100)  # cycles per image of 256 px


def rank_equalise(image: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 1 H W"]:
    """Each image's grey levels replaced by their rank, spread over [-1, 1]: display settings drop
    out. Equal grey levels share their mean rank, so that a black border stays one grey level.
    """
    flat = image.flatten(1).contiguous()
    ordered = flat.sort(1).values
    before, until = torch.searchsorted(ordered, flat), torch.searchsorted(ordered, flat, right=True)
    rank = (before + until - 1).float() / 2
    return (rank * (2 / (flat.shape[1] - 1)) - 1).view_as(image)


def shrink(image: Float[Tensor, "B 1 H W"], size: int) -> Float[Tensor, "B 1 h w"]:
    """Area average to size x size."""
    return F.interpolate(image, size=(size, size), mode="area")


def image_statistics(image: Float[Tensor, "B 1 H W"]) -> dict[str, float | list[float]]:
    """Grey levels in [0, 1], power at `SPECTRUM_FREQUENCIES`, slopes of the spectrum, mean
    correlation of pairs at 32 px.
    """
    image = image.cpu()
    x = (image[:, 0] + 1) / 2
    size = x.shape[-1]
    window = torch.hann_window(size, periodic=False)
    centred = (x - x.mean((1, 2), keepdim=True)) * window[:, None] * window
    power = torch.fft.fft2(centred).abs().square().mean(0)
    frequency = torch.fft.fftfreq(size, 1 / size)
    radius = torch.sqrt(frequency[:, None] ** 2 + frequency**2).round().long().flatten()
    total = torch.zeros(int(radius.max()) + 1).index_add_(0, radius, power.flatten())
    radial = total / torch.bincount(radius).clamp_min(1)

    def slope(low: int, high: int) -> float:
        f = np.arange(low, high)
        return float(np.polyfit(np.log(f), np.log(radial[low:high].numpy()), 1)[0])

    small = shrink(image, 32).flatten(1)
    correlation = torch.corrcoef(small)
    n = len(small)
    return {
        "mean": float(x.mean()),
        "sd of the image mean": float(x.mean((1, 2)).std()),
        "sd within an image": float(x.flatten(1).std(1).mean()),
        "pairwise correlation": float((correlation.sum() - n) / (n * (n - 1))),
        "spectral slope 8-32": slope(8, 32),
        "spectral slope 32-110": slope(32, MAX_SLOPE),
        "power": [float(radial[f]) for f in SPECTRUM_FREQUENCIES],
    }


def train_on_phantoms(
    *,
    n: int,
    size: int,
    steps: int,
    batch_size: int,
    seed: int,
    preset: Preset,
    device: str,
    progress: Callable[[str], None],
) -> nn.Module:
    """Trains a residual network of ten layers on n simulated images only (rendered at twice the
    size and averaged), each with a severity of its own.
    """
    phantom = ChestPhantom(2 * size, preset, seed=seed, device=device)
    image, label = _simulated(phantom, n, size, seed, progress)
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ResNet10(classes=len(CLASSES), stride=STRIDE).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    network.train()
    for step in range(steps):
        rows = torch.randint(len(image), (batch_size,), generator=draw).to(device)
        x = jitter(image[rows].float(), draw)
        loss = F.binary_cross_entropy_with_logits(network(x), label[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 200 == 0:
            progress(f"step {step + 1} of {steps}, loss {float(loss.detach()):.3f}")
    return network.eval()


def _simulated(
    phantom: ChestPhantom, n: int, size: int, seed: int, progress: Callable[[str], None]
) -> tuple[Float[Tensor, "n 1 h w"], Float[Tensor, "n 8"]]:
    """Rank-equalised images (in half precision, to save memory) and labels of images 0 ... n - 1,
    with severities uniform in `SEVERITIES`.
    """
    low, high = SEVERITIES
    severity = low + (high - low) * torch.rand(n, generator=generator("severity", seed))
    images, labels = [], []
    for index in torch.arange(n).split(256):
        sample = phantom.sample(index, severity=severity[index])
        images.append(rank_equalise(shrink(sample.image, size)).half())
        labels.append(sample.label_vector)
        progress(f"rendered {int(index[-1]) + 1} of {n} simulated images")
    return torch.cat(images), torch.cat(labels)


def jitter(image: Float[Tensor, "B 1 H W"], generator: torch.Generator) -> Float[Tensor, "B 1 H W"]:
    """Small random zoom, shift and blur, and noise, one draw for each image."""
    n = len(image)
    u = torch.rand(n, 5, generator=generator).to(image.device)
    zoom, zero = 0.92 + 0.16 * u[:, 0], torch.zeros(n, device=image.device)
    rows = [
        torch.stack([zoom, zero, 0.08 * (u[:, 1] - 0.5)], 1),
        torch.stack([zero, zoom, 0.08 * (u[:, 2] - 0.5)], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(image.shape), align_corners=False)
    image = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
    soft = F.avg_pool2d(image, 3, 1, 1, count_include_pad=False)
    image = torch.lerp(image, soft, 0.7 * u[:, 3, None, None, None])
    noise = torch.randn(image.shape, generator=generator).to(image.device)
    return image + 0.1 * u[:, 4, None, None, None] * noise


@torch.no_grad()
def evaluate_on_real(
    network: nn.Module, store: ArrayStore, *, size: int, device: str
) -> list[dict[str, float | str]]:
    """AUROC of each class against the images without finding, for all views and for PA alone.

    Args:
        store: a prepared ChestX-ray14 store with a `view` column.
    """
    rows = torch.arange(len(store))
    logits = []
    for block in rows.split(128):
        image = from_uint8(torch.from_numpy(np.array(store.images[block.numpy()]))).to(device)
        logits.append(network(rank_equalise(shrink(image, size))).cpu())
    logit, labels = torch.cat(logits), torch.from_numpy(np.array(store.labels)).bool()
    healthy = ~labels.any(1)
    pa = torch.from_numpy(np.asarray(store.table["view"]) == "PA")
    table: list[dict[str, float | str]] = []
    for k, name in enumerate(CLASSES):
        positive = labels[:, store.classes.index(name)]
        row: dict[str, float | str] = {"class": name}
        for view, chosen in (("all", torch.ones_like(pa)), ("PA", pa)):
            used = chosen & (positive | healthy)
            n1, n0 = int((positive & used).sum()), int((healthy & used).sum())
            area = auroc(logit[used, k], positive[used])
            row |= {f"auroc {view}": area, f"n {view}": n1, f"healthy {view}": n0}
        table.append(row)
    return table


@torch.no_grad()
def evaluate_on_phantoms(
    network: nn.Module, *, size: int, n: int, seed: int, preset: Preset, device: str
) -> dict[str, float]:
    """AUROC of each class on simulated patients of another population, for comparison."""
    phantom = ChestPhantom(2 * size, preset, seed=seed + 1_000_003, device=device)
    image, labels = _simulated(phantom, n, size, seed, lambda _: None)
    logit = torch.cat([network(block.float()) for block in image.split(256)])
    label = labels > 0
    healthy = ~label.any(1)
    return {
        name: auroc(logit[label[:, k] | healthy, k], label[label[:, k] | healthy, k])
        for k, name in enumerate(CLASSES)
    }


def real_statistics(
    store: ArrayStore, rows: Int[np.ndarray, " n"]
) -> dict[str, float | list[float]]:
    return image_statistics(from_uint8(torch.from_numpy(np.array(store.images[rows]))))


def phantom_statistics(
    n: int, *, size: int, seed: int, preset: str = "default"
) -> dict[str, float | list[float]]:
    return image_statistics(ChestPhantom(size, preset, seed=seed).sample(torch.arange(n)).image)


def _check_real(store: ArrayStore) -> None:
    missing = [name for name in CLASSES if name not in store.classes]
    if missing or "view" not in store.table:
        raise StoreError(
            f"a ChestX-ray14 store with all of {CLASSES} and a column `view` is needed, got "
            f"classes {tuple(store.classes)} and columns {sorted(store.table)}"
        )
    if store.size < 2 * MAX_SLOPE:
        raise StoreError(f"images of {2 * MAX_SLOPE} px or more are needed, got {store.size}")


def measure(
    store_path: str,
    *,
    size: int = 64,
    n: int = 4096,
    steps: int = 2500,
    batch_size: int = 32,
    seeds: int = 3,
    preset: str = "default",
    device: str = "cpu",
    progress: Callable[[str], None] = print,
) -> dict[str, object]:
    """Both measurements, with everything needed to repeat them.

    Args:
        store_path: a ChestX-ray14 store made by `data_scripts/prepare_nih.py` at 256 px.
        size: pixels at which the classifier looks.
        n, steps, batch_size: simulated images and training steps of each classifier.
        seeds: how many classifiers, each with its own simulated population.

    Returns:
        A record: settings, fingerprint of the real store, image statistics of both collections,
        and for each class the AUROC on real and on simulated images: mean and the value of every
        seed, and the standard error that comes from the number of real images.

    Raises:
        StoreError: the store lacks a class or the column `view`, or its images are too small.
    """
    store, start = ArrayStore.open(store_path), time.time()
    _check_real(store)
    rows = np.sort(np.random.default_rng(0).choice(len(store), min(200, len(store)), replace=False))
    statistics = {
        "real": real_statistics(store, rows),
        "simulated": phantom_statistics(200, size=store.size, seed=11, preset=preset),
    }
    shown = PRESETS[preset]
    tables, simulated = [], []
    settings = {
        "size": size, "n": n, "steps": steps, "batch_size": batch_size, "seeds": seeds,
        "preset": preset, "severity": f"{SEVERITIES[0]} to {SEVERITIES[1]}",
    }  # fmt: skip
    for seed in range(seeds):
        progress(f"seed {seed} of {seeds}")
        network = train_on_phantoms(
            n=n, size=size, steps=steps, batch_size=batch_size, seed=seed, preset=shown,
            device=device, progress=progress,
        )  # fmt: skip
        tables.append(evaluate_on_real(network, store, size=size, device=device))
        simulated.append(
            evaluate_on_phantoms(network, size=size, n=1024, seed=seed, preset=shown, device=device)
        )
    rows_out: list[dict[str, object]] = []
    for k, name in enumerate(CLASSES):
        row: dict[str, object] = dict(tables[0][k])
        for view in ("all", "PA"):
            areas = [float(table[k][f"auroc {view}"]) for table in tables]
            row |= {f"auroc {view}": float(np.mean(areas)), f"auroc {view} by seed": areas}
            n1, n0 = int(str(row[f"n {view}"])), int(str(row[f"healthy {view}"]))
            row[f"se {view}"] = hanley_standard_error(float(np.mean(areas)), n1, n0)
        row["auroc simulated"] = float(np.mean([table[name] for table in simulated]))
        rows_out.append(row)
    return {
        "what": "classifiers trained on simulated radiographs only, tested on real NIH images",
        "command": "python -m cxrtut realism --real STORE",
        "settings": settings,
        "real data": {
            "source": store.source, "images": len(store), "fingerprint": store.fingerprint,
        },
        "versions": {
            "cxrtut": __version__, "torch": torch.__version__, "python": platform.python_version(),
        },
        "device": _device_name(device),
        "seconds": round(time.time() - start),
        "image statistics": statistics,
        "sim to real": rows_out,
    }  # fmt: skip


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _range(values: list[float | None]) -> str:
    """Smallest and largest value; a dash where nothing was measured (null in a record's file)."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    return f"{min(known):.2f}–{max(known):.2f}" if known else "–"


def transfer_table(record: dict[str, Any]) -> list[dict[str, str | int | float | None]]:
    """The sim-to-real part of a record of `measure` as rows for a page."""
    return [
        {
            "class": row["class"],
            "AUROC": row["auroc all"],
            "seeds": _range(row["auroc all by seed"]),
            "s.e.": row["se all"],
            "n": row["n all"],
            "AUROC, PA": row["auroc PA"],
            "s.e. PA": row["se PA"],
            "n PA": row["n PA"],
            "on simulated": row["auroc simulated"],
        }
        for row in record["sim to real"]
    ]


def statistics_table(record: dict[str, Any]) -> list[dict[str, str | int | float]]:
    """The image statistics of a record of `measure` as rows for a page."""
    real, simulated = (record["image statistics"][kind] for kind in ("real", "simulated"))
    rows: list[dict[str, str | int | float]] = [
        {"of images": name, "real": real[name], "simulated": simulated[name]}
        for name in real
        if name != "power"
    ]
    for i, frequency in enumerate(SPECTRUM_FREQUENCIES):
        ratio = simulated["power"][i] / real["power"][i]
        name = f"power at {frequency} cycles an image, relative to real"
        rows.append({"of images": name, "real": 1.0, "simulated": ratio})
    return rows
