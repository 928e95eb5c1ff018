"""Whether translated images pass for healthy before a judge, how many pixels were changed for it,
and how much of the change it takes.

The judge is a classifier that was trained on the same images as the systems and is frozen; what it
says of real images stands beside what it says of translated ones, because a judge that calls
everything healthy would let everything pass.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cxrtut.data.sample import System
from cxrtut.data.split import Rows, Side, Split, evenly, row_parts
from cxrtut.evaluation.measure import Better, JudgedMeasure, Measure, Numbers, device_of
from cxrtut.metrics.counterfactual import pixel_change_rate

TOLERANCES = (0, 1, 2, 4)  # grey levels of 255
SHARES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)  # of the change
KINDS = ("abnormal", "normal")
TRANSLATION_BETTER: dict[str, Better] = {
    "translated": "higher",
    "translated_abnormal": "higher",
    "translated_normal": "higher",
    "judge": "higher",
    "judge_abnormal": "higher",
    "judge_normal": "higher",
    **{f"flipped@{share:g}": "higher" for share in SHARES},
}
CHANGE_BETTER: dict[str, Better] = {
    f"pixel_change{kind}@{tolerance}": "lower"
    for kind in ("", *(f"_{kind}" for kind in KINDS))
    for tolerance in TOLERANCES
}


def kinds_of(split: Split, side: Side, at_most: int | None = None) -> dict[str, Rows]:
    """Abnormal and normal rows of a side; at most so many of each kind, evenly."""
    rows = {"abnormal": split.abnormal(side), "normal": split.normal(side)}
    return {kind: evenly(found, at_most) for kind, found in rows.items()}


def looks_healthy(judge: System, images: Float[Tensor, "B C H W"]) -> Bool[Tensor, " B"]:
    """Whether the judge gives no disease a probability above .5.

    Raises:
        ValueError: a judge that gives no scores.
    """
    scores = judge.predict(images).scores
    if scores is None:
        raise ValueError("judge: expected a system that gives scores, got one that does not")
    return (scores <= 0.5).all(1)


def translation(
    system: System, judge: System, split: Split, side: Side, *, at_most: int | None = None
) -> Numbers:
    """Table 1 of Kim et al. (PILLET-GAN, MIDL 2022): the share of images translated to healthy that
    the judge calls healthy.

    Args:
        system: answers with images.
        judge: answers with scores; frozen.
        split: gives the images.
        side: of the split.
        at_most: so many images of each kind, evenly; all by default.

    Returns:
        `translated_abnormal` (P to H), `translated_normal` (H to H) and `translated` (both kinds
        pooled). `judge_abnormal`, `judge_normal` and `judge`: how often the judge is right about
        the images as they were. `flipped@S`: of the abnormal images that the judge calls abnormal,
        the share that it calls healthy once S times the change is added to them. A kind without
        images has no numbers; nothing where the system gives no image.
    """
    numbers: Numbers = {}
    passed, right = [], []
    for kind, rows in kinds_of(split, side, at_most).items():
        if not len(rows):
            continue
        found = []
        for part in row_parts(rows):
            image = split.batch(part, device_of(system)).image
            output = system.predict(image).image
            if output is None:
                return {}
            shares = SHARES if kind == "abnormal" else ()
            found.append(_judged(judge, image, output, shares))
        before, after, *flipped = (torch.cat(part) for part in zip(*found, strict=True))
        passed.append(after)
        right.append(before == (kind == "normal"))
        numbers[f"translated_{kind}"] = float(after.double().mean())
        numbers[f"judge_{kind}"] = float(right[-1].double().mean())
        for share, row in zip(SHARES, flipped, strict=False):
            if len(row):
                numbers[f"flipped@{share:g}"] = float(row.double().mean())
    if passed:
        numbers["translated"] = float(torch.cat(passed).double().mean())
        numbers["judge"] = float(torch.cat(right).double().mean())
    return numbers


@torch.no_grad()
def _judged(
    judge: System, image: Tensor, output: Tensor, shares: tuple[float, ...]
) -> list[Bool[Tensor, " _"]]:
    """What the judge calls healthy: the images; what was made of them; and, for each of the shares,
    those of the images that it does not call healthy with so much of their change.
    """
    before, after = (looks_healthy(judge, shown.clamp(-1, 1)) for shown in (image, output))
    asked, change = image[~before], (output - image)[~before]
    found = [before, after]
    for share in shares:
        if share == 1.0 or not len(asked):
            found.append(after[~before])
        else:
            found.append(looks_healthy(judge, (asked + share * change).clamp(-1, 1)))
    return [part.cpu() for part in found]


def pixel_change(
    system: System, split: Split, side: Side, *, at_most: int | None = None
) -> Numbers:
    """Table 2 of Kim et al. (PILLET-GAN, MIDL 2022): the share of pixels that a translation to
    healthy changes; see `pixel_change_rate`.

    Args:
        system: answers with images.
        split: gives the images.
        side: of the split.
        at_most: so many images of each kind, evenly; all by default.

    Returns:
        For tolerances T of 0, 1, 2 and 4 grey levels of 255 `pixel_change_abnormal@T` (P to H),
        `pixel_change_normal@T` (H to H) and `pixel_change@T`, the mean over all these images. A
        kind without images has no numbers; nothing where the system gives no image.
    """
    rates: dict[str, np.ndarray] = {}
    for kind, rows in kinds_of(split, side, at_most).items():
        found = []
        for part in row_parts(rows):
            image = split.batch(part, device_of(system)).image
            output = system.predict(image).image
            if output is None:
                return {}
            found.append(_change_rates(image, output))
        if found:
            rates[f"_{kind}"] = torch.cat(found, 1).numpy()
    if rates:
        rates[""] = np.concatenate(list(rates.values()), axis=1)
    return {
        f"pixel_change{kind}@{tolerance}": float(row.mean())
        for kind, table in rates.items()
        for tolerance, row in zip(TOLERANCES, table, strict=True)
    }


def _change_rates(image: Tensor, output: Tensor) -> Float[Tensor, "T B"]:
    return torch.stack([pixel_change_rate(image, output, grey_levels=t).cpu() for t in TOLERANCES])


def translation_measure(side: Side, at_most: int | None = None) -> JudgedMeasure:
    """`translation` of one side of a split."""

    def measure(system: System, judge: System, split: Split, side: Side) -> Numbers:
        return translation(system, judge, split, side, at_most=at_most)

    return JudgedMeasure(side, measure, TRANSLATION_BETTER)


def pixel_change_measure(side: Side, at_most: int | None = None) -> Measure:
    """`pixel_change` of one side of a split."""

    def measure(system: System, split: Split, side: Side) -> Numbers:
        return pixel_change(system, split, side, at_most=at_most)

    return Measure(side, measure, CHANGE_BETTER)
