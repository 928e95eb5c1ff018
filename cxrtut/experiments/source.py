"""Which images an experiment is run on, as the command line says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from cxrtut.data.pasted import PASTED, pasted_store
from cxrtut.data.phantom import PRESETS, ChestPhantom
from cxrtut.data.phantom.storage import identity, in_memory
from cxrtut.data.split import Split, all_diseases, identity_of, one_disease
from cxrtut.data.store import ArrayStore, StoreError

KINDS = ("phantom", "store", "pasted")
PREVALENCE = 0.8  # of simulated images with any of all diseases: enough of each to learn from


@dataclass(frozen=True, kw_only=True)
class Source:
    """Which images.

    Attributes:
        data: `phantom` (simulated), `store` (a prepared store, of whatever collection) or `pasted`
            (artificial biomarkers, on the normal images of a store or of the simulation).
        root: the store; for `pasted` optional.
        disease: what is abnormal, where one disease is looked for; of a store also `any`.
        where: only images of a store with these texts in these columns of its table.
        phantom_preset: of the simulation.
        images: simulated images; 0 for as many as the comparison asks for.

    Raises:
        StoreError: no such kind of data, or what does not go with it.
    """

    data: str = "phantom"
    root: Path | None = None
    disease: str = "Pneumonia"
    where: Mapping[str, str] = field(default_factory=dict)
    phantom_preset: str = "easy"
    images: int = 0

    def __post_init__(self) -> None:
        if self.data not in KINDS:
            raise StoreError(f"--data: expected one of {', '.join(KINDS)}, got {self.data!r}")
        if self.data == "store" and self.root is None:
            raise StoreError("--data store: expected --data-root with a prepared store, got none")
        if self.data == "phantom" and self.root is not None:
            raise StoreError(f"--data phantom: expected no --data-root, got {self.root}")
        if self.root is not None and self.images:
            raise StoreError("--images: expected none with --data-root, a store has its own")
        if self.root is None and self.where:
            raise StoreError("--where: expected --data-root, simulated images have no table")

    def one_disease(self, size: int, seed: int, images: int) -> Split:
        """One disease, or pasted biomarkers, against normal images.

        Args:
            size: of the images, pixels.
            seed: of what is simulated.
            images: simulated ones, half of them abnormal, unless the source says another number.

        Raises:
            StoreError: no such store, or it lacks something.
        """
        if self.data == "store":
            store = ArrayStore.open(str(self.root))
            return one_disease(store, size, disease=self.disease, where=self.where)
        n = self.images or images
        if self.data == "pasted":
            return self._pasted(size, seed, n)
        phantom = ChestPhantom(size, self.phantom_preset, seed=seed, classes=(self.disease,))
        return one_disease(
            in_memory(phantom, n), disease=self.disease, identity=identity(phantom, n),
            name=f"{self.disease} on simulated radiographs ({self.phantom_preset})",
        )  # fmt: skip

    def all_diseases(self, size: int, seed: int, images: int) -> Split:
        """All diseases; simulated images are posed as in the clinic, whatever the preset.

        Args:
            size: of the images, pixels.
            seed: of what is simulated.
            images: simulated ones, unless the source says another number.

        Raises:
            StoreError: no such store, it lacks something, or pasted biomarkers are asked for: they
                are no diseases.
        """
        if self.data == "pasted":
            raise StoreError("--data pasted: expected phantom or store, where there are diseases")
        if self.data == "store":
            return all_diseases(ArrayStore.open(str(self.root)), size, where=self.where)
        n = self.images or images
        posed = replace(PRESETS[self.phantom_preset], pose=PRESETS["default"].pose)
        phantom = ChestPhantom(size, posed, seed=seed, prevalence=PREVALENCE)
        return all_diseases(
            in_memory(phantom, n),
            identity=identity(phantom, n) | {"preset": f"{self.phantom_preset}, posed"},
            name=f"eight diseases on simulated radiographs ({self.phantom_preset})",
            poses=lambda rows: phantom.sample(torch.from_numpy(rows)).pose,
        )

    def _pasted(self, size: int, seed: int, n: int) -> Split:
        if self.root is None:
            phantom = ChestPhantom(size, self.phantom_preset, seed=seed, prevalence=0.0)
            clean, about = in_memory(phantom, n), identity(phantom, n)
        else:
            clean = ArrayStore.open(str(self.root))
            about = identity_of(clean)
        made = pasted_store(clean, size, seed=seed, where=self.where)
        return one_disease(
            made, disease=PASTED, name=f"pasted biomarkers ({clean.source})",
            identity=about | {"source": made.source, "pasted with seed": seed},
        )  # fmt: skip
