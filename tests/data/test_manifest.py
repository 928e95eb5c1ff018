"""The arrays of a store, mapped or read. What is in store.json, test_store.py tells."""

import errno

import numpy as np
import pytest

from cxrtut.data.manifest import StoreError, map_array
from cxrtut.data.store import ArrayStore


def without_maps(monkeypatch, code):
    def no_map(*_, **__):
        raise OSError(code, "cannot be mapped")

    monkeypatch.setattr("numpy.memmap", no_map)


@pytest.mark.parametrize("code", [errno.ENODEV, errno.EINVAL, errno.EACCES])
def test_a_file_that_cannot_be_mapped_is_read_instead(folder, contents, monkeypatch, code):
    assert isinstance(ArrayStore.open(folder).images, np.memmap)
    without_maps(monkeypatch, code)
    read = ArrayStore.open(folder, verify="full")
    assert type(read.images) is np.ndarray
    for name in ("images", "labels", "healthy", "masks"):
        assert np.array_equal(getattr(read, name), contents[name]), name
    with pytest.raises(ValueError, match="read-only"):
        read.images[0] = 1


def test_a_file_that_is_broken_or_not_there_is_an_error_where_nothing_can_be_mapped(
    tmp_path, monkeypatch
):
    without_maps(monkeypatch, errno.ENODEV)
    np.save(tmp_path / "x.npy", np.zeros((3, 4), np.uint8))
    assert map_array(tmp_path / "x.npy", (3, 4)).shape == (3, 4)
    data = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(data[:-5])
    for name in ("x.npy", "none.npy"):
        with pytest.raises(StoreError, match=rf"{name}: not a readable .npy file"):
            map_array(tmp_path / name, (3, 4))
