"""A trained system in one line, asked about one's own films, measured on one's own images. None of
it is a medical device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cxrtut.data.film import Film, in_film, read_film
from cxrtut.data.sample import Detections, Prediction, System
from cxrtut.data.split import Split, identity_of
from cxrtut.data.store import ArrayStore, StoreError
from cxrtut.data.view import view
from cxrtut.engine.initial_weights import WeightsError
from cxrtut.engine.performance import set_memory_format
from cxrtut.evaluation.classification import auroc_measure, normal_or_not_measure
from cxrtut.evaluation.counterfactual import removal_measure, twin_measure
from cxrtut.evaluation.localisation import HEADLINE, largest_region, localisation_measure
from cxrtut.evaluation.measure import ForClasses, Measure
from cxrtut.evaluation.pixels import pixel_measure
from cxrtut.evaluation.roc import roc_measure
from cxrtut.evaluation.translation import pixel_change_measure
from cxrtut.experiments.registered import comparison
from cxrtut.records.recorded import RUNS, read_record, weights_file
from cxrtut.records.run_record import Weights
from cxrtut.records.weights import load_networks, read_description

MEASURES: tuple[Measure, ...] = (
    pixel_measure("test"),
    roc_measure("test"),
    removal_measure("test"),
    twin_measure("test"),
    pixel_change_measure("test"),
    localisation_measure("test"),
    auroc_measure("test"),
    normal_or_not_measure("test"),
)
NOT_A_DEVICE = "This is no medical device, and its answers are no diagnosis."


class Pretrained:
    """A trained system that takes films as people have them.

    Attributes:
        system: what was trained.
        paper, arm: whose it is, and which row of its tables.
    """

    def __init__(self, system: System, paper: str, arm: str, device: torch.device) -> None:
        self.system, self.paper, self.arm, self.device = system, paper, arm, device

    @property
    def classes(self) -> tuple[str, ...]:
        """The K classes of the answers."""
        return self.system.classes

    @property
    def size(self) -> int:
        """Height and width at which the networks look, in pixels."""
        return self.system.size

    @property
    def channels(self) -> int:
        """Channels of the images that the networks see."""
        return self.system.channels

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """All that was trained."""
        return self.system.networks

    def predict(self, film: Film) -> Prediction:
        """The answer for one film, in its own pixels: scores (1, K), heat map (1, K, H, W), image
        (1, C, H, W), and the box around the largest region of each class's heat map. This is no
        medical device, and its answers are no diagnosis.

        Args:
            film: a path (PNG, JPEG, TIFF, BMP, DICOM), an array or a tensor of any size: uint8, or
                floats in [-1, 1] or [0, 1].

        Raises:
            ImageError: a file that cannot be read.
            TypeError, ValueError: what is no film; says what was expected and what came.
        """
        framed = read_film(film, self.size, self.channels)
        answer = self.system.predict(framed.image.to(self.device))
        (answer,) = in_film(answer, [framed.frame])
        if answer.boxes is None and answer.heatmap is not None:
            # In the film: what the network saw around it is no place for a box
            answer = replace(answer, boxes=(boxes_of(answer.heatmap[0]),))
        return answer


def boxes_of(heatmap: torch.Tensor, threshold: float = HEADLINE) -> Detections:
    """The box around the largest region of the heat map (K, H, W) of each class, scored by its
    largest heat; none for a map without heat.
    """
    found = largest_region(heatmap, threshold)
    labels = [torch.full((len(b),), k, dtype=torch.int64) for k, (b, _) in enumerate(found)]
    return Detections(
        torch.cat([boxes for boxes, _ in found]), torch.cat([scores for _, scores in found]),
        torch.cat(labels).to(heatmap.device),
    )  # fmt: skip


def load(name: str | Path, *, device: torch.device | str = "cpu") -> Pretrained:
    """A trained system.

    Args:
        name: "record/arm" of what is published, such as "biomarker/G-D-C", the record named as the
            paper; or a folder that `train` wrote, or a file that `train` or `reproduce` wrote.
        device: where its networks shall be.

    Raises:
        FileNotFoundError: nothing of that name; what there is is named.
        WeightsError: a file that is no such system.
    """
    path = _found(name)
    about = read_description(path)
    chosen = comparison(about.paper)
    config_type = type(next(iter(chosen.presets.values())))
    try:
        config = config_type(**about.configuration)
        if hasattr(config, "imagenet"):
            config = replace(config, imagenet=False)  # the file has what they have become
    except TypeError as error:
        raise WeightsError(f"{path}: made with another configuration: {error}") from error
    system = chosen.arm(about.arm).build(config, about.classes, 0)
    load_networks(system, path)
    device = torch.device(device)
    for network in system.networks.values():
        network.to(device)
    set_memory_format(device, system.networks)
    return Pretrained(system, about.paper, about.arm, device)


def recorded_systems(
    name: str, arms: Sequence[str], instead: Mapping[str, System]
) -> dict[str, System]:
    """The published systems of a record, or those of `instead`, after saying so, where their files
    are neither here nor to be had: all or none, as what was trained otherwise cannot be compared.

    Args:
        name: of the record, such as "biomarker" or "biomarker_pasted".
        arms: rows of its tables.
        instead: arm to what the reader has trained; may lack some of the arms.

    Returns:
        Arm to system: those asked for, or those of `instead`; on the CPU.

    Raises:
        FileNotFoundError: no such arm was published.
    """
    known = published()
    for arm in arms:
        if (name, arm) not in known:
            names = ", ".join(f"{p}/{a}" for p, a in known)
            raise FileNotFoundError(f"{name}/{arm}: expected one of {names}")
    try:
        return {arm: load(f"{name}/{arm}").system for arm in arms}
    except FileNotFoundError:
        rest = f"what was trained here: {', '.join(instead)}" if instead else "no network"
        print(
            f"The recorded networks of {name} ({', '.join(arms)}) are left out, since they are "
            f"neither on this machine nor online; the page goes on with {rest}."
        )
        for system in instead.values():  # where the published ones would be
            for network in system.networks.values():
                network.to("cpu")
        return dict(instead)


def _found(name: str | Path) -> Path:
    path = Path(name)
    if path.is_dir():
        path = path / "system.safetensors"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: expected the folder of a finished run, found no such file"
            )
        return path
    if path.is_file():
        return path
    record, stroke, arm = str(name).partition("/")
    known = published()
    if not stroke or (record, arm) not in known:
        names = ", ".join(f"{r}/{a}" for r, a in known)
        raise FileNotFoundError(
            f"{name}: expected a folder of `train`, a file of weights, or one of {names}"
        )
    return weights_file(known[record, arm])


def published() -> dict[tuple[str, str], Weights]:
    """(record, arm) of everything that is published, to where its weights are. A paper's main
    record is named as the paper.
    """
    found = {}
    for file in sorted(RUNS.glob("*.json")):
        for arm, weights in read_record(file.stem).weights.items():
            found[file.stem, arm] = weights
    return found


def evaluate(
    system: System, data: ArrayStore | Split, measures: Sequence[str], *, name: str = "your images"
) -> dict[str, float]:
    """Measures a system on images with labels, boxes or masks.

    Args:
        system: any of them, such as what `load` returns.
        data: a store, all of it; or the test images of a split. Classes go together by name: what
            is measured is what both have. Images are brought to the size that the system takes.
        measures: identifiers such as "pixel_ap", "pixel_auroc", "loc_acc@0.3", "auroc",
            "pixel_change@0", "twin_error"; all those of `MEASURES`. What needs a judge is not among
            them.
        name: of the data.

    Returns:
        The numbers asked for, those of single classes ("auroc/Mass") besides.

    Raises:
        ValueError: no such measure, or one that these images or this system cannot have.
        StoreError: images of other channels than the system takes, or smaller ones.
    """
    known = {identifier for measure in MEASURES for identifier in measure.better}
    for wanted in measures:
        if wanted not in known:
            raise ValueError(f"expected measures of {', '.join(sorted(known))}, got {wanted!r}")
    asked = system.system if isinstance(system, Pretrained) else system
    split = _shown_to(asked, data if isinstance(data, Split) else _all_of(data, name))
    asked = ForClasses(asked, split.classes)
    numbers: dict[str, float] = {}
    for measure in MEASURES:
        if not set(measures) & set(measure.better):
            continue
        for identifier, value in measure.measure(asked, split, "test").items():
            if identifier.partition("/")[0] in measures:
                numbers[identifier] = value
    missing = [wanted for wanted in measures if wanted not in numbers]
    if missing:
        raise ValueError(
            f"{', '.join(missing)}: cannot be measured here; the system answers for "
            f"{', '.join(asked.classes)}; of the images {len(split.normal('test'))} are normal and "
            f"{len(split.abnormal('test'))} abnormal, they have {len(split.store.boxes)} boxes and "
            f"{'' if split.store.store.masks is not None else 'no '}masks"
        )
    return numbers


def _all_of(store: ArrayStore, name: str) -> Split:
    """All images of a store, to be tested with."""
    none, rows = np.zeros(0, dtype=np.int64), np.arange(len(store))
    return Split(name, view(store), none, none, rows, identity_of(store))


def _shown_to(system: System, split: Split) -> Split:
    """The split with the classes that the system knows, at the size that it takes."""
    store = split.store.store
    classes = tuple(name for name in split.classes if name in system.classes)
    if not classes:
        raise ValueError(
            f"expected images labelled with some of {', '.join(system.classes)}, got "
            f"{', '.join(split.classes)}"
        )
    if split.channels != system.channels:
        raise StoreError(f"expected images of {system.channels} channels, got {split.channels}")
    if store.size < system.size:
        raise StoreError(f"expected images of {system.size} px or more, got {store.size} px")
    return replace(split, store=view(store, classes=classes, size=system.size))
