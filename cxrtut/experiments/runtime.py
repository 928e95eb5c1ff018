"""Where a page runs, and at which preset it can go on there."""

from __future__ import annotations

PRESETS = ("smoke", "colab", "paper")
"""The sizes at which a page runs, from the smallest to the paper's."""
NEED_A_GPU = frozenset({"colab", "paper"})
SMALLEST = PRESETS[0]


def usable(preset: str) -> tuple[str, str]:
    """Says which torch runs where, and chooses a preset that can end there: without a GPU one that
    needs a GPU would take hours, so the page goes on with the smallest.

    Args:
        preset: one of `PRESETS`.

    Returns:
        The preset to go on with, and the device, "cuda" or "cpu".

    Raises:
        ValueError: no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"expected a preset of {', '.join(PRESETS)}, got {preset!r}")
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    place = torch.cuda.get_device_name() if device == "cuda" else "the CPU"
    print(f"torch {torch.__version__} on {place}, preset {preset}")
    if device == "cpu" and preset in NEED_A_GPU:
        print(
            f"There is no GPU here, and without one the preset {preset} would take hours: "
            f"this page goes on with {SMALLEST}."
        )
        return SMALLEST, device
    return preset, device


def same_at_every_preset() -> None:
    """Says which torch runs, of a page whose networks are too small for a GPU: it has one size."""
    import torch

    print(f"torch {torch.__version__}. This page needs no GPU and is the same at every preset.")
