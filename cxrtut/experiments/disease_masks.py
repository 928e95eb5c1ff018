"""The comparisons of the disease-masks paper: Tables 1 and 2 (localisation), 3 and 4 (AUROC).

An arm is what its name says, in the order in which the paper trains: the classifier on images as
they are; on aligned images; and again with masks. Not in the paper: `longer`, which trains as long
as the arms with masks and has none; the variants of Eq. (3); the prior for the centre; the loss
without weights; contrast-induced attention with another pooling; and the average box of a class,
which needs no image.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cxrtut.baselines.attention_mining import AttentionMining
from cxrtut.baselines.chestxray8 import ChestXray8
from cxrtut.baselines.classifier import DiseaseClassifier
from cxrtut.baselines.contrast_attention import ContrastAttention
from cxrtut.baselines.limited_supervision import LimitedSupervision
from cxrtut.data.boxes import boxes_to_mask
from cxrtut.data.store import StoreError
from cxrtut.engine.distributed import Ranks
from cxrtut.engine.progress import of_seed
from cxrtut.engine.records import run_record
from cxrtut.experiments.alignment import score_alignment
from cxrtut.experiments.claims import measured
from cxrtut.experiments.label_study import LabelStudy, row_parts
from cxrtut.experiments.localisation import score_classification, score_localisation
from cxrtut.experiments.mask_stages import Method, Stages, Tell, masked
from cxrtut.experiments.sources import Source
from cxrtut.localize.location_priors import centre_prior, pseudo_masks
from cxrtut.metrics.intervals import mean_and_margin
from cxrtut.papers.disease_masks import (
    COLAB,
    MASKED,
    PAPER,
    SMOKE,
    Config,
    align,
    binary,
    shared,
)

PRESETS = {"paper": PAPER, "colab": COLAB, "smoke": SMOKE}
KEPT = ("plain", "aligned", "aligned + DM")  # networks that the book shows, with the aligner
WITH_BOXES = ("Li (boxes)", "average box (boxes)")  # arms that need boxes of training images
OWN = "aligned + DM"  # the paper's method
IMAGES = 8192  # simulated ones
KNOWN_BOXES = 0.2  # share of the training images whose boxes limited supervision sees


def study_of(source: Source, config: Config, seed: int) -> LabelStudy:
    """Images with any number of diseases."""
    return source.label_study(config.size, seed)


def _without_weights(s: Stages) -> Method:
    network = s.classifier()
    task = DiseaseClassifier(network, learning_rate=s.config.learning_rate, weight_decay=0.0)
    s.fit("plain, BCE", task, s.study.feed(), s.config.epochs, s.config.batch_size)
    return masked(network, None)


def _wang(s: Stages) -> Method:
    task = ChestXray8(s.classifier(), learning_rate=s.config.learning_rate)
    return s.baseline("Wang", task, s.study.feed())


def _cai(s: Stages) -> Method:
    task = AttentionMining(copy.deepcopy(s.plain), learning_rate=s.config.learning_rate)
    return s.baseline("Cai", task, s.study.feed())


def _liu(s: Stages, stage: str = "Liu", pooling: str = "mean") -> Method:
    task = ContrastAttention(
        s.classifier(), pooling=pooling, learning_rate=s.config.learning_rate
    )  # fmt: skip
    method = s.baseline(stage, task, s.aligned_feed, aligned=True)
    task.set_reference(align(s.aligner, s.normal)[0])
    return method


def _li(s: Stages) -> Method:
    task = LimitedSupervision(s.classifier(), learning_rate=s.config.learning_rate)
    return s.baseline("Li", task, s.study.feed_with_boxes(KNOWN_BOXES, s.seed))


def _average_box(s: Stages) -> Method:
    """No network: each class has its average box of the training images, in every image. Maps of
    64 x 64 cells are fine enough, and small enough to be kept for all test images.
    """
    cells = min(s.config.size, 64)
    boxes = s.study.average_boxes().to(s.device) * (cells / s.config.size)
    maps = torch.stack([boxes_to_mask(box[None], cells, cells) for box in boxes]).float()

    def read(images: Tensor) -> tuple[Tensor, Tensor]:
        return maps.expand(len(images), *maps.shape), images.new_zeros(len(images), len(maps))

    return Method(nn.Identity(), read, classifies=False)


def _pseudo(s: Stages) -> Float[Tensor, "K h w"]:
    masks = pseudo_masks(s.study.store.classes, s.config.size // s.config.stride)
    return masks.to(s.device)


def _centre(s: Stages) -> Float[Tensor, "K h w"]:
    c = s.config
    classes = s.study.store.classes
    allowed = torch.tensor([name in MASKED for name in classes])[:, None, None]
    return (centre_prior(len(classes), c.size // c.stride) * allowed).to(s.device)


ARMS: dict[str, Callable[[Stages], Method]] = {
    "plain": lambda s: masked(s.plain, None),
    "aligned": lambda s: masked(s.aligned, s.aligner),
    "aligned, longer": lambda s: s.retrained("aligned, longer", None),
    "aligned + DM": lambda s: s.retrained("aligned + DM", s.disease_masks),
    "aligned + PDM": lambda s: s.retrained("aligned + PDM", _pseudo(s)),
    "plain + DM": lambda s: s.retrained("plain + DM", s.masks(s.plain, None), aligned=False),
    "DM, no flip": lambda s: s.retrained(
        "DM, no flip", s.masks(s.aligned, s.aligner, flip=False)
    ),
    "DM, binary": lambda s: s.retrained("DM, binary", binary(s.disease_masks)),
    "DM, shared": lambda s: s.retrained("DM, shared", shared(s.disease_masks)),
    "centre prior": lambda s: s.retrained("centre prior", _centre(s)),
    "plain, BCE": _without_weights,
    "Wang": _wang,
    "Cai": _cai,
    "Liu": _liu,
    "Liu, noisy-or": lambda s: _liu(s, "Liu, noisy-or", "noisy-or"),
    "Li (boxes)": _li,
    "average box (boxes)": _average_box,
}  # fmt: skip


def run_arm(
    arm: str,
    config: Config,
    study: LabelStudy,
    *,
    seed: int,
    device: torch.device,
    out: Path,
    resume: bool,
    ranks: Ranks,
    watch: Callable[[str], Tell] | None,
    **settings: Any,
) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """Trains an arm, with the stages that it begins with, into a folder: a log and checkpoints for
    each stage.

    Returns:
        The networks, and on rank 0 the scores.

    Raises:
        StoreError: a study without boxes on its test images, or, for the arms `WITH_BOXES`, on its
            training images.
    """
    check_boxes(study)
    if arm in WITH_BOXES and not study.boxes_to_learn_from:
        raise StoreError(f"{study.name}: {arm!r} expected boxes of training images, got none")
    stages = Stages(
        config, study, seed, device, out=out, resume=resume, watch=watch,
        settings={"ranks": ranks, **settings},
    )  # fmt: skip
    method = ARMS[arm](stages)
    networks = {"classifier": method.network} if method.classifies else {}
    if method.aligner is not None:
        networks["aligner"] = method.aligner
    return networks, {"held out": score(method, study, config, device)} if ranks.first else {}


def score(method: Method, study: LabelStudy, config: Config, device: Any) -> dict[str, Any]:
    """A trained method on the test images: localisation and AUROC; see `localisation`."""
    parts = [method.on(study.store.batch(r, device).image) for r in row_parts(study.test)]
    maps, logits, matrices = zip(*parts, strict=True)
    whole = torch.cat(maps), torch.cat(logits)
    moved = None if method.aligner is None else torch.cat(matrices)
    where = score_localisation(*whole, moved, study, cut=config.cut)
    whether = score_classification(whole[1], study)
    if not method.classifies:
        where["false positives"] = whether["AUROC"] = None
        whether["by class"]["AUROC"] = dict.fromkeys(study.store.classes)
    return where | whether | {"by class": where["by class"] | whether["by class"]}


def compare(
    config: Config,
    make_study: Callable[[int], LabelStudy],
    *,
    seeds: int,
    arms: Sequence[str] = tuple(ARMS),
    device: torch.device | str = "cpu",
    command: str = "",
    progress: Callable[[str], Tell] | None = None,
    keep: Callable[[str, nn.Module], None] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Tables 1 to 4: every arm and comparator, each seed with its own data and weights.

    Args:
        config: of the arms.
        make_study: the data of a seed.
        seeds: how many.
        arms: of `ARMS`; those with boxes are left out where no image to learn from has any.
        device: where.
        command: what makes the record again.
        progress: a name to a callback for its reports.
        keep: told the name and the network of the methods in `KEPT` and the aligner, of the first
            seed.
        **settings: further arguments of `engine.loop.train`.

    Raises:
        StoreError: a study has no boxes; said before anything is trained.

    Returns:
        A run record; `results` has for each method, and for "alignment", a list with the scores of
        every seed; for "masks" how many sure maps each was made of.
    """
    start = time.perf_counter()
    results: dict[str, list[dict[str, Any]]] = {}
    data: dict[str, str] = {}
    for seed in range(seeds):
        study = make_study(seed)
        check_boxes(study)
        data = {"name": study.name, f"fingerprint, seed {seed}": study.store.fingerprint} | data
        watch = of_seed(progress, seed)
        stages = Stages(config, study, seed, device, watch=watch, settings=settings)
        for arm in arms:
            if arm in WITH_BOXES and not study.boxes_to_learn_from:
                continue
            began = time.perf_counter()
            method = ARMS[arm](stages)
            scores = score(method, study, config, device)
            seconds = round(time.perf_counter() - began, 1)
            results.setdefault(arm, []).append({"held out": scores, "seconds": seconds})
            if keep and seed == 0 and arm in KEPT:
                keep(arm, method.network)
        if stages.sure_maps:
            results.setdefault("masks", []).append({"sure maps": dict(stages.sure_maps)})
        if "aligner" in stages.__dict__:
            found = score_alignment(stages.aligner, stages.anchor, study, config, device)
            results.setdefault("alignment", []).append({"held out": found})
            if keep and seed == 0:
                keep("aligner", stages.aligner)
    return run_record(
        what="localisation accuracy and AUROC of each method, per seed", command=command,
        configuration=asdict(config), data=data, seeds=list(range(seeds)), device=device,
        seconds=time.perf_counter() - start, results=results,
    )  # fmt: skip


def check_boxes(study: LabelStudy) -> None:
    """Raises StoreError where a study has no boxes on its test images."""
    if not len(study.pairs[0]):
        raise StoreError(f"{study.name}: expected boxes on the test images, got none")


def comparison_table(
    record: Mapping[str, Any], measures: Sequence[str] = ("T .3", "T .5", "T .7", "AUROC")
) -> list[dict[str, str | int | float | None]]:
    """A record of `compare` as rows for a page: of each measure (a name, or a path as in claims)
    the mean over seeds and, from two seeds on, half its 95 % interval.
    """
    rows: list[dict[str, str | int | float | None]] = []
    for method in (arm for arm in ARMS if arm in record["results"]):
        runs = record["results"][method]
        row: dict[str, str | int | float | None] = {"method": method}
        for name in measures:
            values = _known([measured(run["held out"], name) for run in runs])
            row[name] = _with_margin(values) if values else None
        rows.append(row)
    return rows


def _with_margin(values: Sequence[float]) -> str:
    mean, margin = mean_and_margin(values)
    return f"{mean:.3f}\u00a0±\u00a0{margin:.3f}" if math.isfinite(margin) else f"{mean:.3f}"


def class_table(
    record: Mapping[str, Any], measure: str, methods: Sequence[str]
) -> list[dict[str, str | int | float | None]]:
    """One measure by class, as in the paper's Tables 1 to 4: a row for each method, the mean over
    seeds.
    """
    rows: list[dict[str, str | int | float | None]] = []
    for method in methods:
        runs = [run["held out"]["by class"][measure] for run in record["results"][method]]
        row: dict[str, str | int | float | None] = {"method": method}
        for name in runs[0]:
            row[name] = _mean([run[name] for run in runs])
        rows.append(row)
    return rows


def _mean(values: Sequence[float | None]) -> float | None:
    known = _known(values)
    return float(np.mean(known)) if known else None


def _known(values: Sequence[float | None]) -> list[float]:
    """The values that are there and are numbers."""
    return [v for v in values if v is not None and not math.isnan(v)]
