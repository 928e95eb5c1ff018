"""The simulated chest radiograph: patients, visits, findings and exposures as batches.

A drawing made of physics, for teaching and testing. It is not a patient, and no result on it is
clinical evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cxrtut.data.phantom.acquisition import sample_acquisitions
from cxrtut.data.phantom.anatomy import Plan, build_anatomy
from cxrtut.data.phantom.annotation import boxes_by_side, landmarks, pack_boxes
from cxrtut.data.phantom.detector import Exposure
from cxrtut.data.phantom.devices import devices
from cxrtut.data.phantom.findings import CLASSES, cap, change, draw_finding
from cxrtut.data.phantom.fusion import Fuse, as_written, compile_here, fused, fused_if_equal, pays
from cxrtut.data.phantom.patient import sample_patients
from cxrtut.data.phantom.presets import PRESETS, Confounder, Preset, check_severity
from cxrtut.data.phantom.randomness import Draws, Law, Uniform, draw, keys
from cxrtut.data.phantom.threads import on_every_core
from cxrtut.data.sample import Batch

A = TypeVar("A")
B = TypeVar("B")

MASK_THRESHOLD = 0.02  # change of optical depth (2 % of intensity) that counts as a change
# ten images are four patients with one, two, three and four visits
VISITS = (0, 0, 1, 0, 1, 2, 0, 1, 2, 3)
_PATIENT_OF = (0, 1, 1, 2, 2, 2, 3, 3, 3, 3)
MAX_FINDINGS = 3
LASTS = 0.7  # of two visits of a patient, how often the second finds what the first did
MAX_SIZE = 1024  # pixels
PLANNED = 64  # images planned at once
WIDER = 4  # times a chunk, the largest on a CPU

_CASE: dict[str, Law] = {
    "lasts": Uniform(0, 1),
    "abnormal": Uniform(0, 1),
    "number": Uniform(0, 1),
    "order": Uniform(0, 1, (len(CLASSES),)),
    "tag": Uniform(0, 1),
    "split": Uniform(0, 1),
}


@dataclass(frozen=True, eq=False)
class PhantomSample:
    """Simulated radiographs and everything that is known of them.

    Attributes:
        image, healthy: (B, 1, H, W) float32 in [-1, 1]; the healthy twin has the same patient,
        exposure and noise.
        label_vector: (B, 8) float32 {0, 1} in the order of `CLASSES`.
        mask: (B, 8, H, W) bool, the pixels that a finding changes (by more than `MASK_THRESHOLD`
        in optical depth).
        region: (B, 8, H, W) bool, what a reader would call the finding; the boxes enclose it.
        boxes, box_label: (B, M, 4) float32 xyxy pixels and (B, M) int64 class, -1 where padded.
        pose: (B, 2, 3), (X, Y, 1) in [-1, 1] -> patient coordinates (see
        `frame.pose_matrix`).
        landmarks: (B, 9, 2) float32 pixels, named by `annotation.LANDMARKS`.
        landmark_visible: (B, 9) bool, whether they lie in the picture.
        lung, heart: (B, H, W) bool silhouettes of the healthy chest.
        ctr: (B,) cardiothoracic ratio of the image's heart, without magnification.
        ap: (B,) 1 for portable exposures. tag: (B,) 1 where the confounding marker is shown.
        patient, visit, index: (B,) int64.
    """

    image: Float[Tensor, "B 1 H W"]
    healthy: Float[Tensor, "B 1 H W"]
    label_vector: Float[Tensor, "B 8"]
    mask: Bool[Tensor, "B 8 H W"]
    region: Bool[Tensor, "B 8 H W"]
    boxes: Float[Tensor, "B M 4"]
    box_label: Int[Tensor, "B M"]
    pose: Float[Tensor, "B 2 3"]
    landmarks: Float[Tensor, "B 9 2"]
    landmark_visible: Bool[Tensor, "B 9"]
    lung: Bool[Tensor, "B H W"]
    heart: Bool[Tensor, "B H W"]
    ctr: Float[Tensor, " B"]
    ap: Float[Tensor, " B"]
    tag: Float[Tensor, " B"]
    patient: Int[Tensor, " B"]
    visit: Int[Tensor, " B"]
    index: Int[Tensor, " B"]

    def __len__(self) -> int:
        return len(self.image)

    def batch(self) -> Batch:
        """The sample as the library's batch; its mask is what the findings change, pixel by pixel.
        Boxes are those of readers, who outline less of it; see `region`.
        """
        return Batch(
            image=self.image, label_vector=self.label_vector, boxes=self.boxes,
            box_label=self.box_label, index=self.index, mask=self.mask, healthy=self.healthy,
        )  # fmt: skip


@dataclass(frozen=True)
class Chunk:
    """Images that are rendered at once: all that was drawn at random, nothing of the pixels yet."""

    plan: Plan
    landmarks: Tensor  # (B, 9, 2), cm
    findings: dict[str, tuple[Tensor, Draws]]  # the rows that have each of them, its parameters
    labels: Tensor
    severity: Tensor
    patient: Tensor
    visit: Tensor
    index: Tensor
    tag: Tensor


class ChestPhantom:
    """An endless, indexable collection of simulated frontal chest radiographs.

    Image i is the same in any batch, order and chunk, and on any device to float tolerance.

    Args:
        size: pixels of a side, 32 to 1024 and a multiple of 16.
        preset: "easy", "default" or "hard", or a `Preset`.
        seed: another seed is another population.
        classes: the findings that occur; labels always have all eight columns of `CLASSES`.
        prevalence: share of abnormal images.
        severity: replaces the preset's: 0 invisible, 1 as subtle as in the clinic, 2.2 (the
        ceiling) obvious.
        several: abnormal images may have up to three findings instead of one.
        confounder: plants a marker that is correlated with a disease.
        device: where images are rendered and returned.
        chunk: images that a thread renders at once. By default, on a CPU, so few that planes stay
        in the processor's cache, and up to four times as many when many images are asked for:
        threads then wait less for each other.
        compiled: fuses the arithmetic of the anatomy (see `fusion`), on a CPU with a C++ compiler.
        The first images take half a minute longer, or a few seconds where torch has the
        programs on the disk; all others take about half the time. By default it is done once it
        pays for the images asked for so far, and if it changes no bit of the first ones.

    Raises:
        ValueError: for an unknown preset or class, a wrong size, severity or prevalence; for
        `compiled` on another device than a CPU.
    """

    classes = CLASSES

    def __init__(
        self,
        size: int = 256,
        preset: str | Preset = "default",
        *,
        seed: int = 0,
        classes: Sequence[str] = CLASSES,
        prevalence: float = 0.5,
        severity: float | None = None,
        several: bool = True,
        confounder: Confounder | None = None,
        device: torch.device | str = "cpu",
        chunk: int | None = None,
        compiled: bool | None = None,
    ) -> None:
        if not 32 <= size <= MAX_SIZE or size % 16:
            raise ValueError(f"size must be a multiple of 16 in [32, {MAX_SIZE}], got {size}")
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {chunk}")
        if isinstance(preset, str) and preset not in PRESETS:
            raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset!r}")
        for name in (*classes, *([confounder.disease] if confounder else [])):
            if name not in CLASSES:
                raise ValueError(f"classes must be among {CLASSES}, got {name!r}")
        if not classes or len(set(classes)) != len(classes):
            raise ValueError(f"classes must be one or more different names, got {tuple(classes)}")
        if not 0 <= seed < 2**62:
            raise ValueError(f"seed must lie in [0, 2^62), got {seed}")
        if not 0 <= prevalence <= 1:
            raise ValueError(f"prevalence must lie in [0, 1], got {prevalence}")
        self.preset = PRESETS[preset] if isinstance(preset, str) else preset
        if severity is not None:
            self.preset = replace(self.preset, severity=severity)
        self.size, self.seed, self.prevalence, self.several = size, seed, prevalence, several
        self.present = tuple(sorted(classes))
        self.confounder = confounder
        self.device = torch.device(device)
        pixels = 2**18 if self.device.type == "cpu" else 2**23
        self.chunk = chunk or max(1, pixels // size**2)
        widens = chunk is None and self.device.type == "cpu"
        self._widest = WIDER * self.chunk if widens else self.chunk
        if compiled and self.device.type != "cpu":
            raise ValueError(f"compiled=True is for the CPU, got device {self.device}")
        self.compiled = compiled
        self._asked = self._expected = 0

    def identities(self, index: Int[Tensor, " B"]) -> tuple[Tensor, Tensor]:
        """Patient and visit of each image: ten images are four patients with one to four visits."""
        if index.dtype != torch.int64 or index.ndim != 1 or (len(index) and int(index.min()) < 0):
            raise ValueError(
                f"index must be a vector of int64 >= 0, got {index.dtype} {tuple(index.shape)}"
            )
        place = index % 10
        patient = index // 10 * 4 + torch.tensor(_PATIENT_OF, device=index.device)[place]
        return patient, torch.tensor(VISITS, device=index.device)[place]

    def begun(self, index: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """At which visit the patient's state of each image began: what a patient has, or has not,
        lasts from one visit to the next in `LASTS` of all pairs, with the same findings in the same
        places.
        """
        patient, visit = self.identities(index.cpu())
        began = visit.clone()
        for _ in range(max(VISITS)):
            case = draw(_CASE, keys(self.seed, patient, began + 1000))
            began = began - ((case.lasts < LASTS) & (began > 0)).long()
        return began

    def labels(self, index: Int[Tensor, " B"]) -> Float[Tensor, "B 8"]:
        """The label vector that image i has unless told otherwise."""
        case = self._case(index, self.begun(index))
        columns = [CLASSES.index(name) for name in self.present]
        rank = case.order[:, columns].argsort(1).argsort(1)
        number = 1 + (case.number > 0.70).long() + (case.number > 0.92).long()
        number = (
            number.clamp(max=min(MAX_FINDINGS, len(columns)))
            if self.several
            else torch.ones_like(number)
        )
        chosen = (rank < number[:, None]) & (case.abnormal < self.prevalence)[:, None]
        labels = torch.zeros(len(index), len(CLASSES))
        labels[:, columns] = chosen.float()
        return labels

    def split(self, index: Int[Tensor, " B"]) -> list[str]:
        """ "train" (70 %), "val" (10 %) or "test" (20 %) by patient."""
        patient, _ = self.identities(index.cpu())
        u = draw(_CASE, keys(self.seed, patient, torch.full_like(patient, -7))).split
        return ["train" if v < 0.7 else "val" if v < 0.8 else "test" for v in u.tolist()]

    def batch(self, index: Int[Tensor, " B"], device: torch.device | str | None = None) -> Batch:
        """Images as the library's batch, like any other source's `batch`."""
        batch = self.sample(index).batch()
        return batch if device is None else batch.to(device)

    def expect(self, n: int) -> None:
        """Says that n images will be asked for: by them it is judged whether compiling pays."""
        self._expected = self._asked + n

    def _fusing(self) -> Fuse:
        """How the arithmetic is done from now on; what was rendered before is the same."""
        if self.compiled:
            return fused(self.chunk)
        if self.compiled is False or self.device.type != "cpu":
            return as_written
        enough = pays(self.chunk, self.size, max(self._asked, self._expected))
        return fused_if_equal(self.chunk) if enough else as_written

    @torch.no_grad()
    def sample(
        self,
        index: Int[Tensor, " B"],
        *,
        labels: Float[Tensor, "B 8"] | None = None,
        severity: Float[Tensor, " S"] | float | None = None,
    ) -> PhantomSample:
        """Renders images.

        Args:
            index: which images, int64 on the CPU.
            labels: findings to give them instead of their own, {0, 1}, at most three a row.
            severity: replaces the preset's, one number or one for each image.

        Raises:
            ValueError: labels that are not 0 or 1, of the wrong shape, or more than three a row;
            severity outside [0, 2.2].
        """
        names = [field.name for field in fields(PhantomSample)]
        index = index.cpu()
        labels = self.labels(index) if labels is None else labels.cpu().float()
        if labels.shape != (len(index), len(CLASSES)) or not bool(
            ((labels == 0) | (labels == 1)).all()
        ):
            raise ValueError(
                f"labels must be 0 or 1 of shape {(len(index), len(CLASSES))}, "
                f"got shape {tuple(labels.shape)}"
            )
        if len(index) and int(labels.sum(1).max()) > MAX_FINDINGS:
            raise ValueError(
                f"at most {MAX_FINDINGS} findings an image, got {int(labels.sum(1).max())}"
            )
        severity = torch.as_tensor(
            self.preset.severity if severity is None else severity, dtype=torch.float32
        ).cpu()
        check_severity(severity)
        if severity.ndim and severity.shape != (len(index),):
            raise ValueError(
                f"severity must be one number or {len(index)} of them, got {tuple(severity.shape)}"
            )
        severity = severity.expand(len(index))
        if not len(index):
            one = self.sample(torch.zeros(1, dtype=torch.int64))
            return PhantomSample(**{name: getattr(one, name)[:0] for name in names})
        parts: list[PhantomSample] = []
        self._asked += len(index)
        render = partial(self._render, fuse := self._fusing())
        if fuse is not as_written:
            block = index[: self.chunk], labels[: self.chunk], severity[: self.chunk]
            compile_here(
                fuse, self.chunk, self.size, lambda: render(self._plan(self.chunk, block)[0])
            )
        share = -(-len(index) // torch.get_num_threads())
        at_once = min(max(share, self.chunk), self._widest)
        planned = max(PLANNED, at_once)
        for rows in torch.arange(len(index)).split(2 * planned):
            blocks = [(index[b], labels[b], severity[b]) for b in rows.split(planned)]
            plans = self._map(partial(self._plan, at_once), blocks)
            chunks = [chunk for part in plans for chunk in part]
            parts += self._map(render, chunks)
        if len(parts) == 1:
            return parts[0]
        joined = self._map(lambda name: torch.cat([getattr(part, name) for part in parts]), names)
        return PhantomSample(*joined)

    def _case(self, index: Tensor, visit: Tensor | None = None) -> Draws:
        """What is drawn of a visit, by default that of each image."""
        patient, own = self.identities(index.cpu())
        visit = own if visit is None else visit
        return draw(_CASE, keys(self.seed, patient, visit + 1000))

    def _tag(self, index: Tensor, labels: Tensor) -> Tensor:
        if self.confounder is None:
            return torch.zeros(len(index))
        abnormal = labels[:, CLASSES.index(self.confounder.disease)]
        p = abnormal * self.confounder.with_disease + (1 - abnormal) * self.confounder.without
        return (self._case(index).tag < p).float()

    def _map(self, work: Callable[[A], B], items: Sequence[A]) -> list[B]:
        return on_every_core(work, items) if self.device.type == "cpu" else [work(i) for i in items]

    def _plan(self, at_once: int, block: tuple[Tensor, Tensor, Tensor]) -> list[Chunk]:
        """Everything but the pixels of a block of images, cut into chunks of `at_once`."""
        index, labels, severity = block
        patient, visit = (t.to(self.device) for t in self.identities(index))
        visits = sample_acquisitions(
            self.seed, patient, visit, strength=self.preset.pose, dose_gain=self.preset.dose
        )
        patients = sample_patients(self.seed, patient)
        begun = keys(self.seed, patient, self.begun(index).to(self.device) + 1)
        plan, places = Plan.of(patients, visits, self.size), landmarks(patients, visits)
        has = (labels > 0) & (severity > 0)[:, None]
        rows_of = {name: has[:, k].nonzero()[:, 0] for k, name in enumerate(CLASSES)}
        findings = {
            name: draw_finding(name, begun[rows.to(self.device)])
            for name, rows in rows_of.items()
            if len(rows)
        }
        tag = self._tag(index, labels)
        chunks = []
        for start in range(0, len(index), at_once):
            rows = slice(start, start + at_once)
            drawn = {}
            for name, draws in findings.items():
                inside = ((rows_of[name] >= start) & (rows_of[name] < start + at_once)).nonzero()
                if len(inside):
                    first, last = int(inside[0]), int(inside[-1]) + 1
                    drawn[name] = rows_of[name][first:last] - start, draws.take(slice(first, last))
            chunks.append(
                Chunk(
                    plan=plan.take(rows), landmarks=places[rows], findings=drawn,
                    labels=labels[rows], severity=severity[rows], patient=patient[rows],
                    visit=visit[rows], index=index[rows], tag=tag[rows],
                )
            )  # fmt: skip
        return chunks

    def _render(self, fuse: Fuse, chunk: Chunk) -> PhantomSample:
        plan, findings, labels, severity = chunk.plan, chunk.findings, chunk.labels, chunk.severity
        patient, visit, index, tag = chunk.patient, chunk.visit, chunk.index, chunk.tag
        anatomy = build_anatomy(plan, self.size, fuse)
        tau = anatomy.tau + devices(plan.acquisition, plan.wires, anatomy.frame)
        exposure, healthy = Exposure.of(
            anatomy, tau, tag.to(self.device) if self.confounder else None
        )
        n, size = len(index), self.size
        region = torch.zeros(n, len(CLASSES), size, size, dtype=torch.bool, device=self.device)
        mask, right = torch.zeros_like(region), anatomy.right > 0
        boxes = torch.zeros(n, len(CLASSES), 2, 4, device=self.device)
        there = torch.zeros(n, len(CLASSES), 2, dtype=torch.bool, device=self.device)
        image, ctr = healthy, anatomy.patient.ctr.clone()
        abnormal = labels.any(1) & (severity > 0)
        if bool(abnormal.any()):
            image = healthy.clone()
            total = torch.zeros_like(tau)
            for name, (rows, draws) in findings.items():
                k, rows = CLASSES.index(name), rows.to(self.device)
                strength = severity.to(self.device)[rows]
                delta, where = change(name, anatomy.take(rows), draws, strength)
                total.index_add_(0, rows, delta)
                mask[rows, k] = delta.abs() > MASK_THRESHOLD
                region[rows, k] = where
                boxes[rows, k], there[rows, k] = boxes_by_side(name, where, right[rows])
                if name == "Cardiomegaly":
                    ctr[rows] += (draws.ctr - ctr[rows]) * strength.clamp(0, 1)
            rows = abnormal.nonzero()[:, 0].to(self.device)
            total = cap(total[rows], anatomy.lung[rows])
            image[rows] = exposure.take(rows).picture(tau[rows] + total)
        boxes, box_label = pack_boxes(boxes, there)
        places = torch.stack(anatomy.frame.to_pixels(*chunk.landmarks.unbind(-1)), -1)
        return PhantomSample(
            image=image[:, None] * 2 - 1, healthy=healthy[:, None] * 2 - 1,
            label_vector=labels.to(self.device), mask=mask, region=region, boxes=boxes,
            box_label=box_label, pose=anatomy.frame.pose,
            landmarks=places, landmark_visible=((places >= 0) & (places <= size)).all(-1),
            lung=anatomy.lung_field > 0.5, heart=anatomy.heart > 0.5,
            ctr=ctr, ap=anatomy.acquisition.ap, tag=tag.to(self.device), patient=patient,
            visit=visit, index=index.to(self.device),
        )  # fmt: skip
