import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ptq_det.errors import InputError
from ptq_det.export import GraphError, decode
from ptq_det.export.decode import read_graph
from ptq_det.export.exporting import export_onnx
from ptq_det.packing import PackedFileError
from tests.conftest import REPO


def test_a_device_makes_the_file_that_the_export_writes(file, graph, tmp_path):
    assert os.path.getsize(graph) < 0.3 * 2**20
    export_onnx(file, tmp_path / "whole.onnx", int8=True)
    counts = []
    decode(file, graph, tmp_path / "decoded.onnx", counts.append)
    assert (tmp_path / "decoded.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()
    assert counts == list(range(1, len(counts) + 1))


def test_it_needs_neither_torch_nor_detectron2_nor_onnx(file, graph, tmp_path):
    code = (
        "import sys\n"
        "for name in ('torch', 'detectron2', 'onnx', 'pycocotools', 'torchvision'):\n"
        "    sys.modules[name] = None\n"
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n, *a: None if n == 'detectron2' else find(n, *a)\n"
        "from ptq_det.export import decode\n"
        f"decode({file!r}, {str(graph)!r}, {str(tmp_path / 'decoded.onnx')!r})\n"
        "import ptq_det.export.predictor, ptq_det.export.pictures\n"
        "assert not any(name.startswith('torch') for name, m in sys.modules.items() if m)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPO)
    onnx.checker.check_model(str(tmp_path / "decoded.onnx"), full_check=True)


def test_a_graph_of_another_file_is_refused(file, graph, tmp_path):
    with open(file, "rb") as source:
        data = bytearray(source.read())
    data[-1] ^= 1
    (tmp_path / "other.safetensors").write_bytes(data)
    with pytest.raises(GraphError, match="exported from another file"):
        decode(tmp_path / "other.safetensors", graph, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
    with pytest.raises(FileNotFoundError):
        decode(tmp_path / "none", graph, tmp_path / "out.onnx")
    with pytest.raises(FileNotFoundError):
        decode(file, tmp_path / "none", tmp_path / "out.onnx")


def forge_external(model):
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    model.graph.initializer.append(tensor)


def forge_attribute(model):
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "w")
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    model.graph.node[0].attribute.append(helper.make_attribute("value", tensor))


def forge_operator(model):
    model.graph.node.append(helper.make_node("Loop", ["a"], ["b"]))


def forge_domain(model):
    model.graph.node.append(helper.make_node("Add", ["a"], ["b"], domain="com.microsoft"))


def forge_import(model):
    model.opset_import.append(helper.make_opsetid("evil", 1))


def forge_subgraph(model):
    inner = helper.make_graph([], "inner", [], [])
    model.graph.node[0].attribute.append(helper.make_attribute("body", inner))


def forge_function(model):
    model.functions.append(helper.make_function("f", "F", [], [], [], []))


def forge_format(model):
    next(x for x in model.metadata_props if x.key == "ptq_det").value = "9"


FORGERIES = {
    "other files": forge_external,
    "in other files": forge_attribute,
    "operator b'Loop'": forge_operator,
    "domain b'com.microsoft'": forge_domain,
    "domain b'evil'": forge_import,
    "graph within the graph": forge_subgraph,
    "functions": forge_function,
    "its format is '9'": forge_format,
}


@pytest.mark.parametrize("message", FORGERIES)
def test_a_graph_that_does_more_than_the_export_s_is_refused(message, graph):
    model = onnx.load(str(graph))
    FORGERIES[message](model)
    graph.write_bytes(model.SerializeToString())
    with pytest.raises(GraphError, match=message):
        read_graph(graph)


def test_fields_that_the_export_never_writes_are_refused(graph):
    model = graph.read_bytes()
    graph.write_bytes(model + b"\xfa\x01\x01x")  # field 31
    with pytest.raises(GraphError, match="a field 31 of a model"):
        read_graph(graph)


def test_an_output_that_is_an_input_is_refused(graph, file):
    for output in (file, graph):
        before = Path(output).read_bytes()
        with pytest.raises(InputError, match="what it is made of"):
            decode(file, graph, output)
        assert Path(output).read_bytes() == before
    with pytest.raises(InputError, match="what it is made of"):
        export_onnx(file, file)


def test_the_same_weights_are_not_given_again_and_again(graph, file, tmp_path):
    model = onnx.load(str(graph))
    entry = next(x for x in model.metadata_props if x.key == "weights")
    wanted = json.loads(entry.value)
    for change in ([f"x{i}", *wanted[0][1:]] for i in range(3)):
        wanted.append(change)
    entry.value = json.dumps(wanted)
    graph.write_bytes(model.SerializeToString())
    with pytest.raises(GraphError, match="again and again"):
        decode(file, graph, tmp_path / "out.onnx")


@pytest.mark.parametrize("weights", ["[", "{}", "[3]", '[["n","codes","none",1.0,false,0]]'])
def test_weights_that_make_no_sense_are_refused(weights, graph, file, tmp_path):
    model = onnx.load(str(graph))
    next(x for x in model.metadata_props if x.key == "weights").value = weights
    graph.write_bytes(model.SerializeToString())
    if weights == "{}":
        decode(file, graph, tmp_path / "out.onnx")  # it wants none, and will not run
        return
    with pytest.raises((GraphError, PackedFileError)):
        decode(file, graph, tmp_path / "out.onnx")


@pytest.mark.parametrize("keep", [0, 1, 100, 5000])
def test_a_cut_graph_is_refused(keep, graph):
    graph.write_bytes(graph.read_bytes()[:keep])
    with pytest.raises(GraphError):
        read_graph(graph)


def test_a_large_file_is_no_graph(graph):
    graph.write_bytes(graph.read_bytes() + bytes(3 << 17))
    with pytest.raises(GraphError, match="a graph without weights has 314572 at most"):
        read_graph(graph)
