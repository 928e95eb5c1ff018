"""The comparisons of the Biomarker paper: Fig. 3 (arms), Figs. 4 and 5 (class activation maps).

The paper trains and evaluates on the same images "on purpose"; we report these ("same images") and,
from the same training, images of patients never seen ("held out").
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cxrtut.baselines.classifier import BinaryClassifierTask, predict
from cxrtut.data.sample import Batch
from cxrtut.data.store import StoreError
from cxrtut.engine.distributed import Ranks
from cxrtut.engine.loop import train
from cxrtut.engine.progress import JsonLines, SampleGrid, of_seed
from cxrtut.engine.records import run_record
from cxrtut.engine.task import Report
from cxrtut.experiments.sources import Source
from cxrtut.experiments.studies import Study, ground_truth
from cxrtut.localize.cam import class_activation_map
from cxrtut.localize.gradcam import grad_cam
from cxrtut.localize.heatmap import normalise, resize_heatmap, smooth_heatmap
from cxrtut.localize.residual import residual_heatmap
from cxrtut.metrics.classification import auroc
from cxrtut.metrics.counterfactual import background_change, residual_lesion_ratio
from cxrtut.metrics.intervals import bootstrap_interval
from cxrtut.metrics.pixels import (
    image_average_precision,
    pixel_average_precision,
    pixel_prevalence,
)
from cxrtut.nn.backbones import VGG19, ResNet10, ResNet18
from cxrtut.papers.biomarker import (
    COLAB,
    PAPER,
    SMOKE,
    Biomarker,
    Config,
    Pretraining,
    WarmUp,
    WithoutClassifier,
    WithoutCritic,
    heal,
)
from cxrtut.randomness import seeded

PRESETS = {"paper": PAPER, "colab": COLAB, "smoke": SMOKE}
ARMS: dict[str, type[Biomarker]] = {
    "G-D-C": Biomarker,
    "G-D": WithoutClassifier,
    "G-C": WithoutCritic,
    "ED": Pretraining,
}
OWN = "G-D-C"  # the paper's method
IMAGES = 2048  # simulated ones
SHOWN = 6  # images in a sample grid
Tell = Callable[[Report], None]


def study_of(source: Source, config: Config, seed: int) -> Study:
    """One disease (or pasted biomarkers) and normal images."""
    return source.study(config.size, seed)


def run_arm(
    arm: str,
    config: Config,
    study: Study,
    *,
    seed: int,
    device: torch.device,
    out: Path,
    resume: bool,
    ranks: Ranks,
    watch: Callable[[str], Tell] | None,
    **settings: Any,
) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """Trains an arm into a folder, with `log.jsonl` and `samples/`.

    Returns:
        The generator, and on rank 0 its scores.
    """

    def prepare(task: Biomarker) -> list[Tell]:
        return [_samples(task, study, device, out / "samples")] if ranks.first else []

    task = train_arm(
        arm, config, study, seed=seed, device=device, out=out, resume=resume, watch=watch,
        callbacks=[JsonLines(out / "log.jsonl")] if ranks.first else [], prepare=prepare,
        ranks=ranks, **settings,
    )  # fmt: skip
    scores = score_generator(task, study, device) if ranks.first else {}
    return {"generator": task.networks["generator"]}, scores


def _samples(task: Biomarker, study: Study, device: torch.device, folder: Path) -> Tell:
    """Pictures of x, G(x), their difference and, where it is known, the healthy twin."""
    rows = study.held_out if len(study.held_out) else study.abnormal
    batch = study.store.batch(rows[:SHOWN], device)

    def draw() -> Tensor:
        x = batch.image
        output = heal(task.networks["generator"], x)
        columns = [x, output, ((output - x) / 2).clamp(-1, 1)]
        return torch.stack(columns + ([] if batch.healthy is None else [batch.healthy]), 1)

    return SampleGrid(draw, folder)


def train_arm(
    arm: str,
    config: Config,
    study: Study,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    out: Path | None = None,
    resume: bool = False,
    watch: Callable[[str], Tell] | None = None,
    callbacks: Sequence[Tell] = (),
    prepare: Callable[[Biomarker], Sequence[Tell]] | None = None,
    **settings: Any,
) -> Biomarker:
    """Pre-trains G on all images, warms C up where the arm has one, and trains an arm of Fig. 3.

    Args:
        arm: one of `ARMS`.
        config: of the run.
        study: what to train on.
        seed: of weights, order and random numbers.
        device: where.
        out: folder of checkpoints; none are kept without.
        resume: go on from what is in `out`.
        watch: the name of a stage to a callback for its reports: `engine.progress.progress`.
        callbacks: told the reports of the main training.
        prepare: given the task, more callbacks (for pictures of what it makes of fixed images).
        **settings: further arguments of `engine.loop.train`.
    """
    task = ARMS[arm](config, seed=seed, device=device)
    common = {
        "batch_size": config.batch_size, "seed": seed, "device": device, "resume": resume,
        "ranks": settings.pop("ranks", Ranks()),
        "configuration": {
            "arm": arm, "config": asdict(config), "data": study.store.fingerprint,
        },
    }  # fmt: skip
    feed = study.feed()
    for name, stage, steps in (
        ("pretraining", Pretraining, config.pretraining_steps if arm != "ED" else 0),
        ("warm-up", WarmUp, config.warm_up_steps if arm in ("G-D-C", "G-C") else 0),
    ):
        if steps:
            before = stage(config, device=device, networks=task.networks)
            folder = None if out is None else out / name
            told = [watch(f"{arm}, {name}")] if watch else []
            train(
                before, feed, steps=steps, checkpoint_dir=folder, callbacks=told, **common
            )  # fmt: skip
    told = [*callbacks, *(prepare(task) if prepare else ())]
    told = [*([watch(arm)] if watch else []), *told]
    folder = None if out is None else out / "checkpoints"
    train(
        task, feed, steps=config.steps, checkpoint_dir=folder, callbacks=told,
        **(common | settings),
    )  # fmt: skip
    return task


@dataclass(frozen=True)
class Comparators:
    """The classifiers of Section 3.3: ResNet-18 for CAM, VGG-19 for Grad-CAM; at the CPU's size one
    residual network of ten layers for both.

    Reading: "an intermediate convolutional layer" (Grad-CAM-1) is not named; we take conv3_4 of
    VGG-19. Grad-CAM-2 is its last, conv5_4. In the network of ten layers they are the ends of the
    second and the last block.
    """

    for_cam: ResNet10 | ResNet18
    for_grad_cam: ResNet10 | VGG19

    @property
    def layers(self) -> tuple[nn.Module, nn.Module]:
        """Where Grad-CAM-1 and Grad-CAM-2 look."""
        deep = isinstance(self.for_grad_cam, VGG19)
        names = ("conv3_4", "conv5_4") if deep else ("block2", "block4")
        shallow, last = (self.for_grad_cam.features.get_submodule(name) for name in names)
        return shallow, last


def train_comparators(
    config: Config, study: Study, *, seed: int = 0, device: torch.device | str = "cpu", steps: int
) -> Comparators:
    """Classifiers on the images that the arms see."""
    with seeded("comparators", seed):
        if config.classifier_layers == 10:
            small = ResNet10(config.channels, config.classifier_width)
            networks, rates = Comparators(small, small), [1e-3]
        else:
            networks = Comparators(ResNet18(config.channels), VGG19(config.channels))
            rates = [config.learning_rate, 2e-5]  # without norms VGG-19 needs the smaller one
    different = dict.fromkeys((networks.for_cam, networks.for_grad_cam))
    for network, rate in zip(different, rates, strict=True):
        train(
            BinaryClassifierTask(network.to(device), learning_rate=rate), study.feed(), steps=steps,
            batch_size=config.batch_size, seed=seed, device=device,
        )  # fmt: skip
        network.eval()
    return networks


def activation_maps(
    networks: Comparators, images: Float[Tensor, "B C H W"]
) -> dict[str, Float[Tensor, "B H W"]]:
    """CAM and Grad-CAM at two depths of class "abnormal", at the images' size."""
    size = (images.shape[-2], images.shape[-1])
    seen = networks.for_cam
    with torch.no_grad():
        cam = class_activation_map(seen.features(images), seen.classifier.weight)[:, 1]
    asked = torch.ones(len(images), dtype=torch.int64, device=images.device)
    maps = {"CAM": cam}
    for name, layer in zip(("Grad-CAM-1", "Grad-CAM-2"), networks.layers, strict=True):
        maps[name] = grad_cam(networks.for_grad_cam, layer, images, asked)
    return {name: resize_heatmap(value, size) for name, value in maps.items()}


def score(
    heatmap: Float[Tensor, "B H W"], truth: Bool[Tensor, "B H W"], *, seed: int = 0
) -> dict[str, Any]:
    """Localisation by Section 3.1: heat maps normalised to [0, 1] per image, all pixels pooled,
    step-wise average precision.

    Returns:
        `AP` as above; `AP, one range` without the normalisation of each image; `AP, smoothed` after
        a mean over 5 x 5 pixels; `AP, image` the mean over images with its bootstrap interval;
        `chance`, the share of positive pixels.
    """
    unit = normalise(heatmap)
    per_image = image_average_precision(unit, truth)
    return {
        "AP": pixel_average_precision(unit, truth),
        "AP, one range": pixel_average_precision(heatmap, truth),
        "AP, smoothed": pixel_average_precision(normalise(smooth_heatmap(heatmap)), truth),
        "AP, image": asdict(bootstrap_interval(per_image.float(), seed)),
        "chance": pixel_prevalence(truth),
    }


def score_removal(batch: Batch, output: Float[Tensor, "B C H W"]) -> dict[str, float]:
    """Against the healthy twin: what is left of the lesion (1: all of it), and the mean change
    outside it in grey levels of 255.
    """
    if batch.healthy is None:
        return {}
    truth = ground_truth(batch)
    left = residual_lesion_ratio(batch.image, batch.healthy, output, truth)
    damage = background_change(batch.image, output, truth)
    return {"removal error": float(left.nanmean()), "damage": 127.5 * float(damage.nanmean())}


def score_generator(task: Biomarker, study: Study, device: torch.device | str) -> dict[str, Any]:
    """All of it for a trained arm, on both protocols; and how well the mean heat of an image tells
    abnormal from normal patients never seen.
    """
    network = task.networks["generator"]
    results: dict[str, Any] = {}
    for protocol, rows in (("same images", study.same), ("held out", study.held_out)):
        if not len(rows):
            continue
        batch = study.store.batch(rows, device)
        output = heal(network, batch.image)
        heat = residual_heatmap(batch.image, output)
        results[protocol] = score(heat, ground_truth(batch)) | score_removal(batch, output)
        if protocol == "held out" and len(study.held_out_normal):
            other = study.store.batch(study.held_out_normal, device)
            calm = residual_heatmap(other.image, heal(network, other.image))
            means = torch.cat([heat.mean((1, 2)), calm.mean((1, 2))]).cpu()
            ill = torch.arange(len(means)) < len(heat)
            results[protocol]["AUROC of the mean heat"] = auroc(means, ill)
    return results


def score_comparators(
    networks: Comparators, study: Study, device: torch.device | str
) -> dict[str, dict[str, Any]]:
    """The maps of Section 3.3, on both protocols, and the accuracy of the classifiers on patients
    never seen: the paper compares at more than 97 %.
    """
    results: dict[str, dict[str, Any]] = {}
    for protocol, rows in (("same images", study.same), ("held out", study.held_out)):
        if not len(rows):
            continue
        batch = study.store.batch(rows, device)
        parts = [activation_maps(networks, part) for part in batch.image.split(64)]
        for name in parts[0]:
            heat = torch.cat([part[name] for part in parts])
            results.setdefault(name, {})[protocol] = score(heat, ground_truth(batch))
    rows = np.concatenate([study.held_out, study.held_out_normal])
    if len(rows):
        batch = study.store.batch(rows, device)
        ill = batch.label_vector.amax(1).bool()
        right = {
            "CAM": predict(networks.for_cam, batch.image).argmax(1) == ill,
            "Grad-CAM": predict(networks.for_grad_cam, batch.image).argmax(1) == ill,
        }
        for name, method in results.items():
            which = "CAM" if name == "CAM" else "Grad-CAM"
            method["accuracy"] = float(right[which].float().mean())
    return results


def compare(
    config: Config,
    make_study: Callable[[int], Study],
    *,
    seeds: int,
    arms: Sequence[str] = tuple(ARMS),
    comparator_steps: int = 400,
    device: torch.device | str = "cpu",
    command: str = "",
    progress: Callable[[str], Tell] | None = None,
    keep: Callable[[str, nn.Module], None] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Figs. 3 to 5 as numbers: every arm and comparator, each seed with its own data and weights.

    Args:
        config: of the arms.
        make_study: the data of a seed.
        seeds: how many.
        arms: of `ARMS`.
        comparator_steps: training steps of the classifiers behind the activation maps.
        device: where.
        command: what makes the record again.
        progress: a name to a callback for its reports.
        keep: told the name and the network of each method, of the first seed.
        **settings: further arguments of `engine.loop.train`.

    Raises:
        StoreError: a study has no ground truth; said before anything is trained.

    Returns:
        A run record; `results` has for each method a list with the scores of every seed.
    """
    start = time.perf_counter()
    results: dict[str, list[dict[str, Any]]] = {}
    data: dict[str, str] = {}
    for seed in range(seeds):
        study = make_study(seed)
        if not len(study.same):
            raise StoreError(f"{study.name}: expected masks or boxes to score against, got none")
        data = {"name": study.name, f"fingerprint, seed {seed}": study.store.fingerprint} | data
        for arm in arms:
            began = time.perf_counter()
            task = train_arm(
                arm, config, study, seed=seed, device=device, watch=of_seed(progress, seed),
                **settings,
            )  # fmt: skip
            scores = score_generator(task, study, device)
            scores["seconds"] = round(time.perf_counter() - began, 1)
            results.setdefault(arm, []).append(scores)
            if keep and seed == 0:
                keep(arm, task.networks["generator"])
        networks = train_comparators(
            config, study, seed=seed, device=device, steps=comparator_steps
        )
        if keep and seed == 0:
            keep("CAM", networks.for_cam)
        for name, scores in score_comparators(networks, study, device).items():
            results.setdefault(name, []).append(scores)
    return run_record(
        what="pixel average precision of each method, per seed", command=command,
        configuration=asdict(config) | {"comparator_steps": comparator_steps}, data=data,
        seeds=list(range(seeds)), device=device, seconds=time.perf_counter() - start,
        results=results,
    )  # fmt: skip


def comparison_table(
    record: Mapping[str, Any], protocol: str = "same images"
) -> list[dict[str, str | int | float | None]]:
    """A record of `compare` as rows for a page: the mean over seeds, and the range of the headline.

    Args:
        record: with `results`.
        protocol: `same images` (the paper's) or `held out`.
    """

    def mean(runs: list[dict[str, Any]], name: str) -> float | None:
        known = [r[protocol][name] for r in runs if r[protocol].get(name) is not None]
        return float(np.mean(known)) if known else None

    rows: list[dict[str, str | int | float | None]] = []
    for method, runs in record["results"].items():
        values = [run[protocol]["AP"] for run in runs]
        rows.append(
            {
                "method": method,
                "AP": float(np.mean(values)),
                "seeds": f"{min(values):.3f}–{max(values):.3f}",
                "AP, smoothed": mean(runs, "AP, smoothed"),
                "chance": mean(runs, "chance"),
                "left of the lesion": mean(runs, "removal error"),
                "damage (grey levels)": mean(runs, "damage"),
            }
        )
    return rows
