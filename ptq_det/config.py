"""The config node ``TERNARY``."""

import yaml
from detectron2.config import CfgNode as CN

from .quantizers import all_options

__all__ = ["MERGE_ERRORS", "add_ternary_config"]

# What YAML and yacs raise for a file, a key or a value that does not fit a config.
MERGE_ERRORS = (
    AssertionError,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
    yaml.YAMLError,
)


def add_ternary_config(cfg: CN) -> None:
    """Add the node ``cfg.TERNARY`` with its defaults; leave every other key as it is.

    Values are checked when the model is built, by
    :meth:`ptq_det.settings.TernarySettings.from_cfg`.

    Args:
        cfg: a Detectron2 config, changed in place. A node that is there already is kept; it gets
            the options of quantizers that were registered since.
    """
    if "TERNARY" not in cfg:
        cfg.TERNARY = CN()
        _add_keys(cfg)
    # ---- PTQ, TWN, TTQ, SQuantizer, ShiftScaler, and any from outside: options of their own ----

    # Each is an argument of its quantizer's constructor, which declares and explains it
    # (ptq_det/quantizers/): TERNARY.SHIFT_BITS is ShiftScaler(shift_bits=...). docs/usage.md has a
    # table of them.
    for name, option in all_options().items():
        if name.upper() not in cfg.TERNARY:
            cfg.TERNARY[name.upper()] = option.default


def _add_keys(cfg: CN) -> None:
    # ---- All quantizers ----

    # Make the whole model ternary. The ternary builders (e.g. "TernaryStandardROIHeads") do the
    # same part by part and do not look at this key.
    cfg.TERNARY.ENABLED = False

    # "PTQ" (pruning ternary quantization), a ternary baseline: "TWN", "TTQ", or one with more
    # levels: "SQuantizer", and "ShiftScaler", which needs no fine-tuning. Or the name of one that
    # was registered from outside (docs/extending.md).
    cfg.TERNARY.QUANTIZER = "PTQ"

    # Layers whose full name matches one of these patterns (fnmatch) stay in float, beside the first
    # and last layers of known architectures and depthwise convolutions
    # (ternary/kept_layers.py), which do by themselves. A pattern behind "!" makes layers ternary
    # all the same; the last one that matches counts, so that ["!*"] leaves none in float.
    cfg.TERNARY.SKIP = []

    # Refuse to train where a ternary layer's weights were not loaded, and to pack, calibrate or
    # evaluate where any weight was not.
    cfg.TERNARY.REQUIRE_TRAINED = True

    # Bits, 2 to 8, of the activations at the inputs of quantized layers behind a ReLU (PACT,
    # ptq_det/ternary/activations.py), from PRUNE_END on; 0 leaves them in float.
    cfg.TERNARY.ACTIVATION_BITS = 0

    # ---- PTQ, and TWN and TTQ with MATCH_SPARSITY: quantizers that follow a sparsity ----

    # Target fraction of zeros among the codes, in [0, 1). The thresholds of other quantizers follow
    # from their papers, and so does their sparsity.
    cfg.TERNARY.SPARSITY = 0.8

    # Pairs of (name pattern, sparsity); the last pattern that matches a layer's name wins.
    # Example: [["roi_heads.box_head.fc1", 0.9], ["backbone.bottom_up.res3.*", 0.6]]
    cfg.TERNARY.SPARSITY_OVERRIDES = []

    # Size of the packed file in MiB. Before the first iteration the zeros of the two keys above are
    # moved to it, by the same for all layers in log-odds; without SPARSITY_OVERRIDES they are
    # chosen for it, by what they cost the loss and save in the file (sizing/). When codes freeze
    # they are moved once more. 0 leaves the zeros to the two keys.
    cfg.TERNARY.TARGET_MIB = 0.0

    # Where the pruning threshold is taken: over each "layer", or over the whole "network", which
    # lets layers differ in sparsity around the target.
    cfg.TERNARY.THRESHOLD = "layer"

    # ---- PTQ, and any other quantizer that compensates ----

    # Batches of training pictures that are looked at before the first iteration, to let each
    # layer's weights make good what others lose by rounding (compensation/); 0 for none, as in a
    # pruning stage (PRUNE_END above 0), which would use these weights in float. At most as many
    # as there are iterations.
    cfg.TERNARY.COMPENSATION = 24

    # ---- Training ----

    # Refined straight-through estimator: strength of the decay added to the latent weights'
    # gradient, and what they decay toward: "codes" (their own ternary value) or "zero".
    cfg.TERNARY.DECAY = 0.0
    cfg.TERNARY.DECAY_TOWARD = "codes"

    # Stages, as fractions of SOLVER.MAX_ITER. The pruning ratio rises from 0 to the target
    # between iteration 0 and PRUNE_END (weights that survive are still float), weights are ternary
    # from there on, and the codes are frozen from FREEZE_START to the end (only scales, biases and
    # norms move). 0 leaves the pruning stage out, 1 the frozen one.
    cfg.TERNARY.PRUNE_END = 0.0
    cfg.TERNARY.FREEZE_START = 0.9

    # Weight of the distillation losses (training/distillation.py), whose teacher is the float model
    # in MODEL.WEIGHTS; 0 for none.
    cfg.TERNARY.DISTILLATION = 0.0

    # What updates the weights in TernaryTrainer: "SGD" as Detectron2 builds it, or "AdamW" with the
    # same per-parameter rates and decays. Codes flip only when latent weights travel as far as the
    # threshold, which takes a larger rate than float fine-tuning.
    cfg.TERNARY.OPTIMIZER = "SGD"

    # ---- The packed file ----

    # What layers that are not ternary become in the packed file: "int8" (a scale for each output
    # channel) or "float16".
    cfg.TERNARY.FLOAT_LAYERS = "int8"

    # What runs a packed file that is evaluated (--eval-only, MODEL.WEIGHTS x.safetensors): "float",
    # "int8" or "sparse" (integers on a CPU; the file must be calibrated, tools/pack.py), or one
    # that was registered from outside. An engine that is named runs, or says why it cannot; where
    # none is named (""), it is float.
    cfg.TERNARY.ENGINE = ""
