import torch

from ptq_det import pack_model, ternarize
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.packing.source import packed_from_checkpoint
from ptq_det.ternary.ternarize import ternary_layers


def save(model, path):
    torch.save({"model": model.state_dict()}, path)
    return str(path)


def test_a_float_checkpoint_is_ternarized_in_one_shot(cfg, tmp_path):
    model = build_float_model(cfg)
    cfg.MODEL.WEIGHTS = save(model, tmp_path / "float.pth")
    packed, one_shot = packed_from_checkpoint(cfg)
    assert one_shot
    ternarize(model, cfg)
    codes, _ = ternary_layers(model.eval())["roi_heads.box_head.fc1"].codes_and_scale()
    stored = torch.from_numpy(packed.layers["roi_heads.box_head.fc1"].values).flatten(1)
    assert torch.equal(stored, codes.to(torch.int8))


def test_a_ternary_checkpoint_and_a_packed_file_keep_their_codes(model, cfg, tmp_path):
    for layer in ternary_layers(model).values():
        layer.snap()
    pack_model(model, cfg, tmp_path / "m.safetensors")
    expected = (tmp_path / "m.safetensors").read_bytes()
    cfg.TERNARY.SPARSITY = 0.5  # a ternary checkpoint has its own
    for name in (save(model, tmp_path / "m.pth"), str(tmp_path / "m.safetensors")):
        cfg.MODEL.WEIGHTS = name
        packed, one_shot = packed_from_checkpoint(cfg)
        assert not one_shot
        packed.config = packed.config.replace("SPARSITY: 0.5", "SPARSITY: 0.8")
        packed.write(tmp_path / "again.safetensors")
        assert (tmp_path / "again.safetensors").read_bytes() == expected


def test_a_size_is_not_kept_without_a_fine_tuning(cfg, tmp_path, caplog):
    cfg.MODEL.WEIGHTS = save(build_float_model(cfg), tmp_path / "float.pth")
    packed_from_checkpoint(cfg)
    assert "TARGET_MIB" not in caplog.text
    cfg.TERNARY.TARGET_MIB, cfg.TERNARY.SPARSITY_OVERRIDES = 1.0, []
    packed_from_checkpoint(cfg)
    assert "chooses zeros when a fine-tuning begins" in caplog.text
