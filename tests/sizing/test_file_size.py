import os

from ptq_det import pack_model, ternarize
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.sizing.file_size import FileSize
from ptq_det.ternary.ternarize import ternary_layers


def test_it_is_the_size_of_the_file_that_packing_writes(cfg, tmp_path):
    model = build_float_model(cfg)
    ternarize(model, cfg)
    layers = ternary_layers(model)
    size = FileSize(model, cfg, layers)
    for sparsity in (0.8, 0.55):  # one that it was measured with, and another
        for layer in layers.values():
            layer.choose(sparsity)
        pack_model(model, cfg, tmp_path / "model.safetensors")
        written = os.path.getsize(tmp_path / "model.safetensors")
        # Offsets in the header have more or fewer digits.
        assert abs(size.of(dict.fromkeys(layers, sparsity)) - written) <= 256
        assert FileSize(model, cfg, layers).now == written
