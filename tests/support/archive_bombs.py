"""Small model files that declare, or unpack to, more data than a machine has memory."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from keras import layers

GIGABYTES = 1
"""Size in GiB that the files unpack to. More would only take longer to create."""
NAME = "hidden/kernel"


def saved(path: Path = Path("model.keras"), units: int = 4) -> Path:
    """Saves a model whose kernel `[3, units]` is zero, and returns the path."""
    model = keras.Sequential([keras.Input((3,)), layers.Dense(units, name="hidden")])
    model.get_layer("hidden").set_weights([np.zeros((3, units)), np.zeros(units)])
    model.save(path)
    return path


def zeros(stream: Any, size: int) -> None:
    """Writes `size` bytes of zeros in blocks, so that little memory is used."""
    block = bytes(2**24)
    for _ in range(size // len(block)):
        stream.write(block)


def repacked(**changed: Callable[[Any], None]) -> None:
    """Saves `model.keras` with some zip members replaced.

    Args:
        **changed: Functions that write a member's new content, by the member's name with `_` for
            each dot.
    """
    with zipfile.ZipFile(saved()) as file:
        content = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile("model.keras", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, data in content.items():
            write = changed.get(name.replace(".", "_"))
            if write is None:
                file.writestr(name, data)
                continue
            with file.open(name, "w", force_zip64=True) as part:
                write(part)


def config_of_gigabytes() -> None:
    def write(part: Any) -> None:
        part.write(b'{"class_name": "')
        zeros(part, GIGABYTES * 2**30)
        part.write(b'"}')

    repacked(config_json=write)


def config_of_many_units() -> None:
    """The config declares 1e9 units; the stored weights have 4."""
    with zipfile.ZipFile(saved()) as file:
        config = json.loads(file.read("config.json"))
    config["config"]["layers"][1]["config"]["units"] = 1_000_000_000
    repacked(config_json=lambda part: part.write(json.dumps(config).encode()))


def config_of_nested_layers(depth: int = 25) -> None:
    """Keras builds the inner layer of each Bidirectional three times: 3^25 layers in 2 kB."""
    with zipfile.ZipFile(saved()) as file:
        config = json.loads(file.read("config.json"))
    layer = config["config"]["layers"][1]
    for _ in range(depth):
        layer = {"class_name": "Bidirectional", "module": "keras", "config": {"layer": layer}}
    config["config"]["layers"][1] = layer
    repacked(config_json=lambda part: part.write(json.dumps(config).encode()))


def config_of_deep_layers() -> None:
    config_of_nested_layers(300)


def weights_of_gigabytes() -> None:
    repacked(model_weights_h5=lambda part: zeros(part, GIGABYTES * 2**30))


def lying_directory() -> None:
    """The directory of the zip file says that the weights are 1,000 bytes."""
    weights_of_gigabytes()
    path = Path("model.keras")
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"model.weights.h5"))
    struct.pack_into("<I", data, entry + 24, 1000)
    path.write_bytes(data)


def lying_packed_size() -> None:
    """The directory says that the weights take 4 GB in the file."""
    weights_of_gigabytes()
    path = Path("model.keras")
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"model.weights.h5"))
    struct.pack_into("<I", data, entry + 20, 2**32 - 2)
    path.write_bytes(data)


def dataset(**options: Any) -> None:
    """Saves an HDF5 file whose kernel is a dataset with these options."""
    with h5py.File("model.h5", "w") as file:
        group = file.create_group("layers/dense/vars")
        group.attrs["name"] = "hidden"
        group.create_dataset("0", dtype="float32", **options)
        file.create_group("vars").attrs["name"] = "model"


HUGE = (3, 2**40)


def never_written() -> None:
    dataset(shape=HUGE, chunks=(1, 1024))


def never_written_contiguous() -> None:
    dataset(shape=HUGE)


def deflated() -> None:
    """A dataset of zeros that takes far fewer bytes in the file than in memory."""
    dataset(shape=(3, 2**24), chunks=(1, 2**20), compression="gzip", data=np.zeros((3, 2**24)))


def deflated_chunk() -> None:
    """A chunk that unpacks to more than a chunk."""
    import zlib

    packer = zlib.compressobj(1)
    compressed = b"".join([packer.compress(bytes(2**24)) for _ in range(GIGABYTES * 64)])
    compressed += packer.flush()
    dataset(shape=(3, 2**18), chunks=(1, 2**18), compression="gzip")
    with h5py.File("model.h5", "a") as file:
        file["layers/dense/vars/0"].id.write_direct_chunk((0, 0), compressed)


def elsewhere() -> None:
    """A dataset whose bytes lie in another file (HDF5 external storage)."""
    Path("secret").write_bytes(bytes(48))
    dataset(shape=(3, 4), external=[("secret", 0, 48)])


def virtual() -> None:
    with h5py.File("source.h5", "w") as file:
        file["data"] = np.zeros((3, 4), "float32")
    layout = h5py.VirtualLayout((3, 4), "float32")
    layout[:] = h5py.VirtualSource("source.h5", "data", (3, 4))
    with h5py.File("model.h5", "w") as file:
        group = file.create_group("layers/dense/vars")
        group.attrs["name"] = "hidden"
        group.create_virtual_dataset("0", layout)


def linked(link: Any) -> None:
    with h5py.File("source.h5", "w") as file:
        file["data"] = np.zeros((3, 4), "float32")
    with h5py.File("model.h5", "w") as file:
        group = file.create_group("layers/dense/vars")
        group.attrs["name"] = "hidden"
        group["0"] = link


def external_link() -> None:
    linked(h5py.ExternalLink("source.h5", "data"))


def soft_link() -> None:
    linked(h5py.SoftLink("/layers/dense/vars/1"))


def groups_without_end() -> None:
    """A group that has itself as two members: there are 2^n paths of depth n."""
    with h5py.File("model.h5", "w") as file:
        group = file.create_group("layers/dense")
        group["a"] = group["b"] = group
        group.create_group("vars")["0"] = np.zeros((3, 4), "float32")


def deep_groups() -> None:
    with h5py.File("model.h5", "w") as file:
        group = file.create_group("layers")
        for _ in range(3000):
            group = group.create_group("a")


def many_groups() -> None:
    """More than 100,000 paths to one group."""
    with h5py.File("model.h5", "w", libver="latest") as file:
        group = file.create_group("layers")
        target = group.create_group("dense")
        for i in range(100_001):
            group[str(i)] = target


def long_name() -> None:
    """The name of the layer has 60,000 characters."""
    dataset(data=np.zeros((3, 4)))
    with h5py.File("model.h5", "a") as file:
        file["layers/dense/vars"].attrs["name"] = "x" * 60_000


def saved_model_of_declared_size() -> None:
    """A SavedModel with a variable of 4 TiB, of which one entry is stored."""
    import tensorflow as tf

    Path("saved/variables").mkdir(parents=True)
    tf.raw_ops.SaveV2(
        prefix="saved/variables/variables",
        tensor_names=[NAME],
        shape_and_slices=["1048576 1048576 0,1:0,1"],
        tensors=[tf.zeros((1, 1))],
    )
