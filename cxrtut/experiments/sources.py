"""Which images an experiment is run on, as the command line says it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cxrtut.data.phantom import ChestPhantom
from cxrtut.data.phantom.storage import in_memory
from cxrtut.data.store import ArrayStore, StoreError
from cxrtut.experiments.label_study import LabelStudy, phantom_labels, store_labels
from cxrtut.experiments.studies import Study, disease_study, pasted_study, phantom_study


@dataclass(frozen=True, kw_only=True)
class Source:
    """Which images.

    Attributes:
        data: `phantom` (simulated), `nih` (a prepared store: a disease and its boxes) or `pasted`
            (artificial biomarkers, on the normal images of a store or of the simulation).
        root: the store; for `pasted` optional.
        disease: what is abnormal.
        phantom_preset: of the simulation.
        images: simulated images.

    Raises:
        StoreError: no such kind of data.
    """

    data: str = "phantom"
    root: Path | None = None
    disease: str = "Pneumonia"
    phantom_preset: str = "easy"
    images: int = 2048

    def __post_init__(self) -> None:
        if self.data not in ("phantom", "nih", "pasted"):
            raise StoreError(f"expected phantom, nih or pasted, got {self.data!r}")

    def study(self, size: int, seed: int) -> Study:
        """The images of a seed, at the size.

        Raises:
            StoreError: a store is needed and none is given, or it lacks something.
        """
        if self.data == "nih":
            return disease_study(self._store(), size, disease=self.disease)
        if self.data == "pasted":
            store = self._normal_images(size, seed) if self.root is None else None
            return pasted_study(store or ArrayStore.open(str(self.root)), size, seed=seed)
        self._check_no_store()
        return phantom_study(
            size, n=self.images, preset=self.phantom_preset, disease=self.disease, seed=seed
        )

    def label_study(self, size: int, seed: int) -> LabelStudy:
        """All diseases of the images of a seed, at the size.

        Raises:
            StoreError: a store is needed and none is given, it lacks something, or pasted
                biomarkers are asked for: they are no diseases.
        """
        if self.data == "pasted":
            raise StoreError("--data pasted: expected phantom or nih, where there are diseases")
        if self.data == "nih":
            return store_labels(self._store(), size)
        self._check_no_store()
        return phantom_labels(size, n=self.images, preset=self.phantom_preset, seed=seed)

    def _store(self) -> Path:
        if self.root is None:
            raise StoreError("--data nih: expected --data-root with a prepared store, got none")
        return self.root

    def _check_no_store(self) -> None:
        if self.root is not None:
            raise StoreError(f"--data phantom: expected no --data-root, got {self.root}")

    def _normal_images(self, size: int, seed: int) -> ArrayStore:
        phantom = ChestPhantom(size, self.phantom_preset, seed=seed, prevalence=0.0)
        return in_memory(phantom, self.images)
