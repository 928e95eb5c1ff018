"""How real is the simulated radiograph? Two measurements against real NIH images.

1. *Image statistics*: grey levels, radial power spectrum, and how much two images have in common.
2. *Sim-to-real*: a classifier that has seen simulated images only is tested on real ones. What it
   recognises there, the simulation must have drawn well enough.

How to read the result: the view (anteroposterior or posteroanterior) goes with the labels,
differently in every sample of the NIH collection, and so is a confounder. The table therefore has a
column for posteroanterior images alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.random import default_rng
from torch import Tensor, nn

from cxrtut.baselines.classifier import MultiLabelTask
from cxrtut.data.phantom import CLASSES, PRESETS, ChestPhantom, Preset
from cxrtut.data.sample import Batch, from_uint8
from cxrtut.data.store import ArrayStore, StoreError
from cxrtut.engine.loop import train
from cxrtut.engine.schedules import cosine_decay
from cxrtut.engine.task import Report
from cxrtut.metrics.classification import auroc, hanley_standard_error
from cxrtut.nn.backbones import ResNet10
from cxrtut.randomness import generator, seeded, shuffled
from cxrtut.records.run_record import (
    ArmRun,
    Numbers,
    RunRecord,
    hardware,
    library_files,
    revision,
    versions,
)

SEVERITIES = (1.0, 2.2)  # real images of a label show anything from subtle to severe disease
STRIDE = 16  # of the classifier's last feature map
MAX_SLOPE = 110  # cycles per image up to which the spectrum is fitted
SIM_TO_REAL, REAL, SIMULATED = "trained on simulated", "real images", "simulated images"
STATISTICS = {
    "mean": "mean",
    "sd_of_mean": "standard deviation of the image mean",
    "sd_within": "standard deviation within an image",
    "pairwise_correlation": "correlation of two images",
    "slope_8_32": "spectral slope, 8 to 32 cycles",
    "slope_32_110": "spectral slope, 32 to 110 cycles",
}
EXPLAINED = {
    "mean": "Mean grey level; black is 0 and white is 1.",
    "sd_of_mean": "How much images differ in their mean grey level.",
    "sd_within": "Contrast: how much grey levels differ inside an image, the mean over images.",
    "pairwise_correlation": "How alike two images are, at 32 x 32 pixels: 1 is the same picture.",
    "slope_8_32": "How fast detail fades as it gets finer: the exponent of the power spectrum "
    "between 8 and 32 cycles an image. Nearer to 0 means more fine detail.",
    "slope_32_110": "The same exponent for finer detail, between 32 and 110 cycles an image.",
}
TRANSFER = (
    "Classifiers that have seen simulated images only, tested on real and on simulated ones: the "
    "area under the ROC curve (AUROC) of each disease against images without finding, the mean "
    "over seeds and their range; .5 is chance. The standard error comes from the number of "
    "real images. PA: only films taken from behind."
)
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


def image_statistics(image: Float[Tensor, "B 1 H W"]) -> dict[str, float]:
    """The `STATISTICS`: grey levels in [0, 1], slopes of the spectrum, mean correlation of pairs at
    32 px; and `power@F`, the power at `SPECTRUM_FREQUENCIES`.
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
        "sd_of_mean": float(x.mean((1, 2)).std()),
        "sd_within": float(x.flatten(1).std(1).mean()),
        "pairwise_correlation": float((correlation.sum() - n) / (n * (n - 1))),
        "slope_8_32": slope(8, 32),
        "slope_32_110": slope(32, MAX_SLOPE),
        **{f"power@{f}": float(radial[f]) for f in SPECTRUM_FREQUENCIES},
    }


@dataclass(frozen=True, eq=False)
class JitteredImages:
    """Training batches of images in memory, each batch zoomed, shifted, blurred and made noisy as a
    pure function of (seed, step).

    Attributes:
        image: rank-equalised, in half precision to save memory.
        label_vector: {0, 1}.
    """

    image: Float[Tensor, "n 1 h w"]
    label_vector: Float[Tensor, "n K"]

    def steps_per_epoch(self, batch_size: int) -> int:
        """Whole batches in one pass."""
        return len(self.image) // batch_size

    def batches(
        self,
        *,
        batch_size: int,
        seed: int,
        start: int = 0,
        device: torch.device | str = "cpu",
        rank: int = 0,
        ranks: int = 1,
    ) -> Iterator[Batch]:
        """Batches of steps `start`, `start + 1`, ...; a rank gets its share of each."""
        order, step = shuffled(torch.arange(len(self.image))), start
        share, per_epoch = batch_size // ranks, self.steps_per_epoch(batch_size)
        local = slice(rank * share, (rank + 1) * share)
        while True:
            place = step % per_epoch * batch_size
            rows = order(seed, step // per_epoch)[place : place + batch_size]
            image = jitter(self.image[rows].float(), generator("jitter", seed, step))[local]
            none = torch.zeros(share, 0, 4), torch.zeros(share, 0, dtype=torch.int64)
            yield Batch(image, self.label_vector[rows][local], *none, rows[local]).to(device)
            step += 1


def train_on_phantoms(
    *,
    n: int,
    size: int,
    steps: int,
    batch_size: int,
    seed: int,
    preset: Preset,
    device: str,
    callbacks: Sequence[Callable[[Report], None]] = (),
) -> nn.Module:
    """Trains a residual network of ten layers on n simulated images only (rendered at twice the
    size and averaged), each with a severity of its own. The learning rate rises for the first 30 %
    of the steps, then falls along half a cosine.

    Args:
        n: images.
        size: pixels at which the network looks.
        steps: of training, a batch each.
        batch_size: images of a step.
        seed: of the patients, the weights and the order.
        preset: of the simulation.
        device: where.
        callbacks: see `engine.loop.train`.
    """
    phantom = ChestPhantom(2 * size, preset, seed=seed, device=device)
    images = JitteredImages(*(x.cpu() for x in _simulated(phantom, n, size, seed)))
    with seeded("radiograph", seed):
        network = ResNet10(classes=len(CLASSES), stride=STRIDE).to(device)
    warm_up = round(0.3 * steps)
    task = MultiLabelTask(
        network, learning_rate=3e-3, rate=partial(cosine_decay, steps=steps, warm_up=warm_up)
    )
    train(
        task, images, steps=steps, batch_size=batch_size, seed=seed, device=device,
        precision="float32", callbacks=callbacks,
    )  # fmt: skip
    return network.eval()


def _simulated(
    phantom: ChestPhantom, n: int, size: int, seed: int
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
) -> dict[str, float]:
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
    numbers: dict[str, float] = {}
    for k, name in enumerate(CLASSES):
        positive = labels[:, store.classes.index(name)]
        for kind, chosen in (("", torch.ones_like(pa)), ("_pa", pa)):
            used = chosen & (positive | healthy)
            numbers[f"auroc{kind}/{name}"] = auroc(logit[used, k], positive[used])
            numbers[f"n{kind}/{name}"] = float((positive & used).sum())
            numbers[f"n_normal{kind}/{name}"] = float((healthy & used).sum())
    return numbers


@torch.no_grad()
def evaluate_on_phantoms(
    network: nn.Module, *, size: int, n: int, seed: int, preset: Preset, device: str
) -> dict[str, float]:
    """AUROC of each class on simulated patients of another population, for comparison."""
    phantom = ChestPhantom(2 * size, preset, seed=seed + 1_000_003, device=device)
    image, labels = _simulated(phantom, n, size, seed)
    logit = torch.cat([network(block.float()) for block in image.split(256)])
    label = labels > 0
    healthy = ~label.any(1)
    return {
        f"auroc_simulated/{name}": auroc(
            logit[label[:, k] | healthy, k], label[label[:, k] | healthy, k]
        )
        for k, name in enumerate(CLASSES)
    }


def real_statistics(store: ArrayStore, rows: Int[np.ndarray, " n"]) -> dict[str, float]:
    return image_statistics(from_uint8(torch.from_numpy(np.array(store.images[rows]))))


def phantom_statistics(
    n: int, *, size: int, seed: int, preset: str = "default"
) -> dict[str, float]:
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


def measure_realism(
    store_path: str,
    *,
    size: int = 64,
    n: int = 4096,
    steps: int = 2500,
    batch_size: int = 32,
    seeds: int = 3,
    preset: str = "default",
    device: str = "cpu",
    command: str = "python -m cxrtut realism --real STORE",
    watch: Callable[[str], Callable[[Report], None]] | None = None,
) -> RunRecord:
    """Both measurements, with everything needed to repeat them.

    Args:
        store_path: a ChestX-ray14 store made by `data_scripts/prepare_nih.py` at 256 px.
        size: pixels at which the classifier looks.
        n: simulated images of each classifier.
        steps: training steps of each.
        batch_size: images of a step.
        seeds: how many classifiers, each with its own simulated population.
        preset: of the simulation.
        device: where.
        command: what makes the record again.
        watch: the name of a classifier to a callback for its reports.

    Returns:
        A record with three arms: `SIM_TO_REAL`, of each seed and class the AUROC on real images
        (`auroc`, of PA images `auroc_pa`) and on simulated ones (`auroc_simulated`), and how many
        images it rests on (`n`, `n_normal`, and of PA images `n_pa`, `n_normal_pa`); and `REAL` and
        `SIMULATED`, the image statistics of both collections.

    Raises:
        StoreError: the store lacks a class or the column `view`, or its images are too small.
    """
    store, start = ArrayStore.open(store_path), time.perf_counter()
    _check_real(store)
    revision()  # now: the checkout may move on
    rows = np.sort(default_rng(0).choice(len(store), min(200, len(store)), replace=False))
    results: dict[str, list[ArmRun]] = {
        REAL: [ArmRun(test=real_statistics(store, rows))],
        SIMULATED: [ArmRun(test=phantom_statistics(200, size=store.size, seed=11, preset=preset))],
        SIM_TO_REAL: [],
    }
    shown = PRESETS[preset]
    for seed in range(seeds):
        began = time.perf_counter()
        network = train_on_phantoms(
            n=n, size=size, steps=steps, batch_size=batch_size, seed=seed, preset=shown,
            device=device, callbacks=() if watch is None else [watch(f"classifier {seed}")],
        )  # fmt: skip
        numbers = evaluate_on_real(network, store, size=size, device=device)
        numbers |= evaluate_on_phantoms(
            network, size=size, n=1024, seed=seed, preset=shown, device=device
        )
        seconds = round(time.perf_counter() - began, 1)
        results[SIM_TO_REAL].append(ArmRun(test=numbers, seconds=seconds))
    return RunRecord(
        paper="radiograph", command=command,
        what="classifiers trained on simulated radiographs only, tested on real NIH images",
        configuration={
            "size": size, "n": n, "steps": steps, "batch_size": batch_size, "preset": preset,
            "severity": f"{SEVERITIES[0]} to {SEVERITIES[1]}",
        },
        data=[{
            "source": store.source, "images": len(store), "fingerprint": store.fingerprint,
        }],
        classes=CLASSES, seeds=tuple(range(seeds)), results=results,
        better=dict.fromkeys(("auroc", "auroc_pa", "auroc_simulated"), "higher"),
        code=library_files(__name__), revision=revision(), hardware=hardware(torch.device(device)),
        versions=versions(), seconds=round(time.perf_counter() - start, 1),
    )  # fmt: skip


def transfer_table(record: RunRecord) -> list[dict[str, str | int | float | None]]:
    """The sim-to-real part of a record of `measure` as rows for a page: of each class the AUROC on
    real images, its range over seeds, its standard error from the number of images, the same for PA
    images, and the AUROC on simulated ones.
    """
    runs = [run.test for run in record.results[SIM_TO_REAL]]
    rows: list[dict[str, str | int | float | None]] = []
    for name in record.classes:
        row: dict[str, str | int | float | None] = {"disease": name}
        for kind, title in (("", ""), ("_pa", ", PA")):
            areas = [_number(run, f"auroc{kind}/{name}") for run in runs]
            n, normal = (round(_number(runs[0], f"{k}{kind}/{name}")) for k in ("n", "n_normal"))
            mean = float(np.mean(areas))
            row[f"AUROC{title}"] = mean
            if not kind:
                row["range over seeds"] = _range(areas)
            row[f"standard error{title}"] = hanley_standard_error(mean, n, normal)
            row[f"images{title}"] = n
        on_simulated = [_number(run, f"auroc_simulated/{name}") for run in runs]
        rows.append(row | {"AUROC, simulated": float(np.mean(on_simulated))})
    return rows


def above_chance(rows: Sequence[Mapping[str, str | int | float | None]], images: str = "") -> str:
    """A sentence that names the diseases whose AUROC lies more than two standard errors above .5.

    Args:
        rows: of `transfer_table`.
        images: "" for all real images, ", PA" for films taken from behind.
    """
    found = []
    for row in rows:
        area, error = row[f"AUROC{images}"], row[f"standard error{images}"]
        if isinstance(area, float) and isinstance(error, float) and area - 0.5 > 2 * error:
            found.append(str(row["disease"]))
    return f"More than two standard errors above .5: {', '.join(found) or 'none'}."


def _number(numbers: Numbers, name: str) -> float:
    """A number of a record; NaN for null, which stands for what could not be measured."""
    value = numbers[name]
    return float("nan") if value is None else float(value)


def _range(values: Sequence[float]) -> str:
    """Smallest and largest value; a dash where nothing was measured."""
    known = [value for value in values if np.isfinite(value)]
    return f"{min(known):.2f}–{max(known):.2f}" if known else "–"


def statistics_table(record: RunRecord) -> list[dict[str, str | int | float]]:
    """The image statistics of a record of `measure` as rows for a page, each with its meaning."""
    real, simulated = (record.results[kind][0].test for kind in (REAL, SIMULATED))
    rows: list[dict[str, str | int | float]] = [
        {
            "of the images": words, "real": _number(real, name),
            "simulated": _number(simulated, name), "what it is": EXPLAINED[name],
        }
        for name, words in STATISTICS.items()
    ]  # fmt: skip
    for frequency in SPECTRUM_FREQUENCIES:
        power = f"power@{frequency}"
        ratio = _number(simulated, power) / _number(real, power)
        rows.append(
            {
                "of the images": f"power at {frequency} cycles", "real": 1.0, "simulated": ratio,
                "what it is": f"Strength of detail with {frequency} cycles an image; real is 1.",
            }
        )  # fmt: skip
    return rows
