"""The training tool as a user calls it."""

import os
import subprocess
import sys

import pytest

QUICK = "configs/quick_schedules/shapes_mask_rcnn_ptq.yaml"


@pytest.fixture
def tool(repo, pictures, tmp_path):
    def run(*args, check=True, name="train_net"):
        command = [sys.executable, "-W", "ignore", str(repo / f"tools/{name}.py"), *args]
        environment = {
            **os.environ,
            "DETECTRON2_DATASETS": str(tmp_path / "datasets"),
            "OMP_NUM_THREADS": "1",
        }
        environment.pop("XDG_CACHE_HOME", None)
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    own = tmp_path / "datasets/few"
    own.parent.mkdir()
    own.mkdir()
    (own / "annotations").symlink_to(pictures / "annotations")
    (own / "images").mkdir()
    for split in ("train", "val"):
        for picture in (pictures / split).glob("*.png"):
            if not (own / "images" / picture.name).exists():
                (own / "images" / picture.name).symlink_to(picture)
    return run


SMALL = [
    "DATASETS.TRAIN", "('few_train',)", "DATASETS.TEST", "('few_val',)",
    "SOLVER.MAX_ITER", "3", "SOLVER.IMS_PER_BATCH", "2", "INPUT.MIN_SIZE_TRAIN", "(64,)",
    "INPUT.MIN_SIZE_TEST", "64", "DATALOADER.NUM_WORKERS", "0", "OUTPUT_DIR", "out",
]  # fmt: skip


def test_train_resume_and_evaluate(tool, repo, tmp_path):
    config = ["--config-file", str(repo / QUICK)]
    trained = tool(*config, *SMALL)
    assert "copypaste: Task: segm" in trained.stdout
    assert "Iteration 2: stage" in trained.stdout + trained.stderr
    assert (tmp_path / "out/model_final.pth").exists()
    resumed = tool(*config, "--resume", *SMALL, "SOLVER.MAX_ITER", "4")
    assert "out/model_final.pth" in resumed.stdout
    evaluated = tool(*config, "--eval-only", *SMALL, "MODEL.WEIGHTS", "out/model_final.pth")
    tables = [
        [line for line in run.stdout.splitlines() if "copypaste" in line][-4:]
        for run in (resumed, evaluated)
    ]
    assert [t.split("copypaste")[1] for t in tables[0]] == [
        t.split("copypaste")[1] for t in tables[1]
    ]


def test_calibrated_files_run_on_integers(tool, repo, tmp_path, pictures):
    config = ["--config-file", str(repo / QUICK)]
    packed = ["--calibrate", "few_val", "--output", "m.safetensors"]
    done = tool(*config, *packed, name="pack")
    assert done.stdout.splitlines()[-1].endswith("file verified")
    on_integers = ["MODEL.WEIGHTS", "m.safetensors", "TERNARY.ENGINE", "int8"]
    evaluated = tool(*config, "--eval-only", *SMALL, *on_integers)
    assert evaluated.stdout.count("Engine: int8") == 1
    assert "copypaste: Task: segm" in evaluated.stdout
    picture = str(next((pictures / "val").glob("*.png")))
    demo = ["--weights", "m.safetensors", "--input", picture, "--output", "drawn"]
    drawn = tool(*demo, "--engine", "int8", name="demo")
    assert "Engine: int8" in drawn.stdout and (tmp_path / "drawn").exists()
    bare = tool(*config, "--output", "bare.safetensors", name="pack")
    assert bare.returncode == 0
    refused = tool(*config, "--eval-only", *SMALL, *on_integers, "MODEL.WEIGHTS",
                   "bare.safetensors", check=False)  # fmt: skip
    assert refused.returncode == 2 and "--calibrate DATASET" in refused.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--config-file", "no.yaml"], "config file 'no.yaml' not found"),
        ([], "give --config-file"),
        (["CONFIG", "MODEL.WEIGHTS", "no.pth"], "MODEL.WEIGHTS 'no.pth' not found"),
        (["CONFIG", "DATASETS.TRAIN", "('nowhere',)"], "data set 'nowhere' is not registered"),
        (["CONFIG", "DATASETS.TEST", "('coco_2017_val',)"], "DETECTRON2_DATASETS"),
        (["CONFIG", "TERNARY.SPARSITY", "1.5"], "TERNARY.SPARSITY is 1.5; allowed"),
        (["CONFIG", "TERNARY.SPARSTY", "0.5"], "TERNARY.SPARSTY"),
        (["CONFIG", "MODEL.WEIGHTS", ""], "layers to be ternarized were not loaded"),
        (["CONFIG", "MODEL.BACKBONE.FREEZE_AT", "2"], "frozen"),
        (["CONFIG", "SOLVER.LR_SCHEDULER_NAME", "Foo"], "SOLVER.LR_SCHEDULER_NAME is 'Foo'"),
        (["CONFIG", "MODEL.FPN.NORM", "Foo"], "the model cannot be built from this config"),
        (["EVALUATE", "MODEL.FPN.NORM", "Foo"], "the model cannot be built from this config"),
        (["EVALUATE", "MODEL.DEVICE", "gpu"], "MODEL.DEVICE is 'gpu'"),
        (["EVALUATE", "OUTPUT_DIR", "/etc/passwd"], "OUTPUT_DIR '/etc/passwd' cannot be used"),
        (["EVALUATE", "--resume"], "--resume evaluates the last checkpoint of OUTPUT_DIR 'out'"),
    ],
)
def test_a_user_s_mistake_gets_one_message(tool, repo, args, message):
    if args and args[0] in ("CONFIG", "EVALUATE"):
        options = [word for word in args if word.startswith("--")]
        options += ["--eval-only"] if args[0] == "EVALUATE" else []
        values = [word for word in args[1:] if word not in options]
        args = ["--config-file", str(repo / QUICK), *options, *SMALL, *values]
    done = tool(*args, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_two_processes_report_a_mistake_once(tool, repo):
    args = ["--config-file", str(repo / QUICK), "--num-gpus", "2", "--dist-url", "auto"]
    done = tool(*args, *SMALL, "MODEL.WEIGHTS", "", check=False)
    assert done.returncode == 2
    assert done.stderr.count("were not loaded") == 1 and "Traceback" not in done.stderr
