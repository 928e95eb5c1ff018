"""How colours look: contrast as WCAG defines it, CIE Lab, and three kinds of colour blindness
(Machado, Oliveira and Fernandes, 2009, severity 1), all from their published formulas."""

import numpy as np

KINDS = {
    "normal": np.eye(3),
    "protan": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deutan": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritan": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
WHITE = np.array([0.95047, 1.0, 1.08883])


def linear(rgb: np.ndarray) -> np.ndarray:
    """sRGB (..., 3) in [0, 1] to light."""
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def luminance(rgb: np.ndarray) -> np.ndarray:
    """Relative luminance (...) of sRGB (..., 3)."""
    return linear(rgb) @ TO_XYZ[1]


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    """From 1 to 21, of two luminances."""
    low, high = sorted((float(one), float(other)))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray, kind: str = "normal") -> np.ndarray:
    """CIE Lab (..., 3) of sRGB (..., 3) as one kind of eye sees it."""
    light = np.clip(linear(rgb) @ KINDS[kind].T, 0, 1)
    share = light @ TO_XYZ.T / WHITE
    root = np.where(share > 216 / 24389, np.cbrt(share), (24389 / 27 * share + 16) / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)
