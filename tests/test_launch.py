"""The launchers: what they would do, and two real processes on this machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from mae_jax.engine import log
from tests import jobs

TPU = {"NAME": "mae", "ZONE": "us-east5-b", "TYPE": "v6e-32", "BUCKET": "gs://mine/"}
POD = {"NAME": "mae", "IMAGE": "repo/mae:1", "CLAIM": "runs", "HOSTS": "8", "TOPOLOGY": "4x8"}
ARGUMENTS = ["--config", "configs/mae.py:L/16", "--config.data.train=folder('my photos')"]
ESCAPED = r"--config configs/mae.py:L/16 --config.data.train=folder\(\'my\ photos\'\)"


def bash(root, name, *arguments, code=0, **variables):
    """What a script prints."""
    env = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "JAX_PLATFORMS": "cpu"} | variables
    done = subprocess.run(
        ["bash", f"launch/{name}", *arguments], cwd=root, env=env, capture_output=True, text=True
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def test_local_starts_each_process(root):
    printed = bash(root, "local.sh", "--dry-run", "3", *ARGUMENTS, PORT="1234").splitlines()
    assert printed == [
        f"mae-jax train {ESCAPED} --coordinator 127.0.0.1:1234 --processes 3 --process {i} "
        for i in range(3)
    ]


@pytest.mark.parametrize("arguments", [(), ("0",), ("--config", "x")])
def test_local_needs_a_number(root, arguments):
    assert "usage: bash launch/local.sh" in bash(root, "local.sh", *arguments, code=2)


def test_slurm_is_told_in_time_and_requeues(root):
    printed = bash(root, "slurm.sh", "--dry-run", *ARGUMENTS)
    assert "#SBATCH --signal=TERM@300\n" in printed and "#SBATCH --requeue\n" in printed
    assert f"mae-jax train {ESCAPED}" in printed and "\nsrun " in printed
    assert "on exit code 75: scontrol requeue $SLURM_JOB_ID" in printed


@pytest.mark.parametrize("ended", [0, 2, 75])
def test_slurm_requeues_after_75_only(root, tmp_path, ended):
    for name, text in (("srun", f"exit {ended}"), ("scontrol", 'echo "scontrol $*"')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(tmp_path)}
    done = subprocess.run(
        ["bash", root / "launch" / "slurm.sh", "--config", "x"],
        env=env | {"SLURM_JOB_ID": "7"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == ended
    assert ("scontrol requeue 7" in done.stdout) == (ended == 75)


def test_tpu_pod_makes_installs_and_trains(root):
    printed = bash(root, "tpu_pod.sh", "--dry-run", *ARGUMENTS, **TPU)
    first = "gcloud compute tpus queued-resources"
    steps = [
        f"{first} delete mae --zone=us-east5-b",
        f"{first} create mae --node-id=mae --zone=us-east5-b --accelerator-type=v6e-32 "
        "--runtime-version=v2-alpha-tpuv6e --spot",
        "gcloud compute tpus tpu-vm scp /tmp/mae.tar.gz mae:mae_jax.tar.gz",
        ".\\[tpu\\]",
        "mine\\ /mnt",
        "mae-jax\\ train\\ --config\\ configs/mae.py:L/16",
    ]
    places = [printed.replace("$'", "").find(step) for step in steps]
    if -1 in places[3:]:  # bash may quote a text of several lines in another way
        plain = printed.replace("\\ ", " ").replace("\\", "")
        steps[3:] = [".[tpu]", "mine /mnt", "mae-jax train --config configs/mae.py:L/16"]
        places = [plain.find(step) for step in steps]
    assert -1 not in places and places == sorted(places), printed
    assert printed.count("--worker=all") == 4
    assert "--spot" not in bash(root, "tpu_pod.sh", "--dry-run", **TPU, PROVISION="")
    assert "NAME: a name" in bash(root, "tpu_pod.sh", "--dry-run", code=1)


@pytest.mark.parametrize("spot", ["true", "false"])
def test_kubernetes_fills_the_manifest(root, spot):
    yaml = pytest.importorskip("yaml")
    text = bash(root, "kubernetes.sh", "--dry-run", *ARGUMENTS, **POD, SPOT=spot)
    manifest = yaml.safe_load(text)
    spec = manifest["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    container = pod["containers"][0]
    assert manifest["kind"] == "JobSet" and spec["failurePolicy"]["maxRestarts"] == 100
    assert job["parallelism"] == job["completions"] == 8 and job["backoffLimit"] == 0
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2]
    assert pod["restartPolicy"] == "Never"
    assert container["command"] == ["mae-jax", "train", *ARGUMENTS]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert ("cloud.google.com/gke-spot" in pod["nodeSelector"]) == (spot == "true")
    assert "HOSTS: hosts" in bash(
        root, "kubernetes.sh", "--dry-run", code=1, NAME="a", IMAGE="b", CLAIM="c"
    )


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
def test_shellcheck_has_nothing_to_say(root):
    names = [f"launch/{name}.sh" for name in ("local", "slurm", "tpu_pod", "kubernetes")]
    done = subprocess.run(["shellcheck", *names], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_two_real_processes_stop_and_go_on(root, tmp_path):
    """`mae-jax` on the path is this checkout's."""
    (tmp_path / "mae-jax").write_text(f'#!/bin/bash\nexec {sys.executable} -m mae_jax "$@"\n')
    (tmp_path / "mae-jax").chmod(0o755)
    run = tmp_path / "run"
    command = ["bash", "launch/local.sh", "2", "--config", "tests/tiny.py", "--workdir", run]
    command += ["--config.evals.run=knn(k=3)", "--config.evals.every=20"]
    command += ["--config.method.args.normalize_target=False"]  # said at the start, once
    env = jobs.environment() | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "XLA_FLAGS": ""}

    def start():
        return subprocess.Popen(
            command, cwd=root, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    script, until = start(), time.monotonic() + jobs.DEADLINE
    while not any("loss" in line for line in log.read(run / "metrics.jsonl")):
        assert script.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    script.send_signal(signal.SIGTERM)
    _, error = script.communicate(timeout=jobs.DEADLINE)
    assert script.returncode == 75 and "start again to go on" in error, error
    assert error.count("with 3 change(s)") == 1, "the second process is quiet"
    script = start()
    _, error = script.communicate(timeout=jobs.DEADLINE)
    assert script.returncode == 0 and "going on from step" in error, error
    lines = log.read(run / "metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 41))
    assert [line["step"] for line in lines if "eval/knn" in line] == [0, 20, 40]
    assert json.loads((run / "results.json").read_text())["final"]
