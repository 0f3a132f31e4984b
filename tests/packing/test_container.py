import hashlib
import json
import os
import pickle
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from ptq_det.packing.container import Container, PackedFileError, is_packed

RNG = np.random.default_rng(0)


@pytest.fixture
def container():
    tensors = {
        "a.codes": np.arange(200, dtype=np.uint8),
        "a.scale": np.linspace(0, 1, 7, dtype=np.float16).reshape(1, 7),
        "b": np.linspace(0, 1, 9, dtype=np.float32),
        "count": np.array(3),
    }
    return Container(tensors, {"config": "KEY: ä\n", "layers": "{}"})


@pytest.fixture
def file(container, tmp_path):
    container.write(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def refused(path, data):
    path.write_bytes(data)
    with pytest.raises(PackedFileError) as error:
        Container.read(path)
    assert str(path) in str(error.value)
    return str(error.value)


def with_metadata(data, **changed):
    """The file with other metadata and an intact frame."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] |= changed
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def test_everything_comes_back(container, file):
    back = Container.read(file)
    assert back.metadata == container.metadata
    assert back.tensors.keys() == container.tensors.keys()
    for name, tensor in container.tensors.items():
        assert back.tensors[name].dtype == tensor.dtype
        assert np.array_equal(back.tensors[name], tensor)
        assert back.tensors[name].shape == tensor.shape


def test_the_safetensors_library_reads_it(container, file):
    assert is_packed(file)
    tensors = load_file(file)
    assert all(np.array_equal(tensors[name], t) for name, t in container.tensors.items())


def test_the_bytes_are_those_of_version_3(container, file):
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert digest == "5f0d0710b945bc5bef475cfdb4478b8ca4b8c56acabc1f1ad1547e269a12cb72", (
        "another format needs another VERSION"
    )


def test_cut_at_every_percent(file):
    data = file.read_bytes()
    for percent in range(100):
        refused(file, data[: len(data) * percent // 100])


def test_every_byte_counts(file):
    data = file.read_bytes()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << RNG.integers(8)
        refused(file, bytes(changed))
    refused(file, data + b"\0")


def test_every_field_of_the_header_counts(file):
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    for name in json.loads(data[8 : 8 + length])["__metadata__"]:
        for value in ("", "0", "x" * 64):
            refused(file, with_metadata(data, **{name: value}))


def test_many_bytes_at_once(file):
    data = file.read_bytes()
    for _ in range(500):
        changed = bytearray(data)
        for place in RNG.integers(0, len(data), 1 + RNG.integers(30)):
            changed[place] = RNG.integers(256)
        if bytes(changed) != data:
            refused(file, bytes(changed))


def test_another_version_is_told_from_damage(file):
    message = refused(file, with_metadata(file.read_bytes(), version="4"))
    assert "version '4'" in message and "damaged" not in message


def test_files_of_version_1_are_read(file, container):
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].replace(b'"version":"3"', b'"version":"1"')
    digest = json.loads(header)["__metadata__"]["digest"].encode()
    right = hashlib.sha256(header.replace(digest, b"0" * 64)).hexdigest().encode()
    file.write_bytes(data[:8] + header.replace(digest, right) + data[8 + length :])
    assert Container.read(file).metadata == container.metadata


@pytest.mark.parametrize("length", [1 << 42, 1 << 63, (1 << 64) - 1])
def test_a_header_that_announces_terabytes(file, length):
    refused(file, length.to_bytes(8, "little") + file.read_bytes()[8:])


def test_a_tensor_that_announces_terabytes(file):
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["a.codes"]["shape"] = [1 << 42]
    header["a.codes"]["data_offsets"] = [0, 1 << 42]
    text = json.dumps(header).encode()
    refused(file, len(text).to_bytes(8, "little") + text + data[8 + length :])


def test_other_files(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": np.zeros(3)}, path)
    assert not is_packed(path)
    assert "not a packed model" in refused(path, path.read_bytes())
    refused(path, pickle.dumps({"model": [1, 2, 3]}))
    refused(path, b"")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Container.read(tmp_path / "nowhere.safetensors")


def test_a_full_disk_leaves_the_old_file(container, file):
    before = file.read_bytes()
    large = Container({"a": np.zeros(1 << 20, np.uint8)}, {})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            large.write(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]


def test_a_kill_leaves_the_old_file(file):
    before = file.read_bytes()
    script = (
        "import os, signal, sys, numpy as np, ptq_det.files, pathlib\n"
        "from ptq_det.packing.container import Container\n"
        "os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Container({'a': np.zeros(1000)}, {}).write(sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script, str(file)])
    assert done.returncode == -signal.SIGKILL
    assert file.read_bytes() == before


def test_a_checkpoint_of_pytorch_is_called_that(tmp_path):
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        torch.save({"model": {}}, tmp_path / "w.pth", **options)
        with pytest.raises(PackedFileError, match=r"w\.pth: a checkpoint of PyTorch.*pack\.py"):
            Container.read(tmp_path / "w.pth")
