"""Catheters, tubes and noise: where they lie in people."""

import torch

from cxrtut.data.phantom.acquisition import detector_noise, sample_acquisitions
from cxrtut.data.phantom.devices import _central_line, _tube_end


def visits(n, strength=1.0):
    patient = torch.arange(n)
    return sample_acquisitions(0, patient, torch.zeros_like(patient), strength=strength)


def test_a_central_venous_catheter_ends_where_the_vena_cava_meets_the_atrium():
    a = visits(20000)
    x, y = (v[:, -1] for v in _central_line(a, torch.linspace(0, 1, 50)))
    well = (x > -4.5) & (x < 1) & (y > -5) & (y < 5)
    astray = a.line_malposed > 0
    assert well[~astray].all() and not well[astray].any()
    assert 0.02 < astray.float().mean() < 0.04
    assert ((x.abs() < 9) & (y > -12)).all()


def test_a_catheter_comes_from_above_and_crosses_no_more_of_a_lung_than_its_vein():
    a = visits(4000)
    x, y = _central_line(a, torch.linspace(0, 1, 50))
    assert (y[:, 0] < -10).all()
    below = y > -6
    inside = (x > -6) & (x < 3)
    assert inside[below & (a.line_malposed == 0)[:, None]].all()


def test_tubes_end_above_the_carina_or_below_the_dome():
    a = visits(8000)
    end = _tube_end(a)
    tracheal, gastric = end < -7, end > 11
    assert (tracheal ^ gastric).all()
    assert 0.45 < gastric.float().mean() < 0.55


def test_the_noise_of_the_largest_detector_holds_no_copy_of_itself():
    """Two windows of one bank overlap; the second is transposed, and the bank is large."""
    n = 6
    noise = detector_noise(visits(n), 1024)
    assert abs(float(noise.std()) - 1) < 0.01 and abs(float(noise.mean())) < 0.01
    spectrum = torch.fft.rfft2(noise)
    itself = torch.fft.irfft2(spectrum.abs() ** 2, s=(1024, 1024)) / 1024**2
    itself[:, 0, 0] = 0
    assert itself.abs().max() < 0.02
    for i in range(n):
        for j in range(i):
            product = spectrum[i] * spectrum[j].conj()
            other = torch.fft.irfft2(product, s=(1024, 1024)) / 1024**2
            assert other.abs().max() < 0.6
