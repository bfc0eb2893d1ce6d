"""Fletcher's checksum compared with that of HDF5's filter."""

from __future__ import annotations

import io

import h5py
import numpy as np
import pytest

from aime.data.fletcher32 import fletcher32


@pytest.mark.parametrize("length", [1, 2, 3, 359, 720, 721, 4096, 300_001, 600_000])
@pytest.mark.parametrize("kind", ["random", "zeros", "ones"])
def test_it_is_what_hdf5_stores(length: int, kind: str) -> None:
    """Beyond 360 words HDF5 folds its sums in between; all ones have a sum of 0 modulo 65535."""
    random = np.random.default_rng(length).integers(0, 256, length, dtype=np.uint8)
    data = {"random": random, "zeros": np.zeros_like(random), "ones": np.full_like(random, 255)}[kind]
    with h5py.File(io.BytesIO(), "w") as file:
        stored = file.create_dataset("data", data=data, chunks=data.shape, fletcher32=True)
        file.flush()
        _, chunk = stored.id.read_direct_chunk((0,))
    assert chunk[:-4] == data.tobytes()
    assert fletcher32(chunk[:-4]) == int.from_bytes(chunk[-4:], "little")
