"""The launchers: what they would do, and two real processes on this machine."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.metadata import requires

import pytest

from tests.helpers import jobs
from tests.helpers.runs import CONFIG, losses

DELETE = "gcloud compute tpus queued-resources delete mae --zone=us-east5-b --force --quiet"
TPU = {"NAME": "mae", "ZONE": "us-east5-b", "TYPE": "v6e-32", "BUCKET": "gs://mine/"}
POD = {"NAME": "mae", "IMAGE": "repo/mae:1", "CLAIM": "runs", "HOSTS": "8", "TOPOLOGY": "4x8"}
NAMES = ("local", "slurm", "tpu_pod", "kubernetes", "compilers", "test_tpu")
ARGUMENTS = ["--config", "configs/mae.py:L/16", "--workdir", "/mnt/runs/l16"]
ARGUMENTS += ["--config.data.train=folder('my photos')"]
ESCAPED = "--config configs/mae.py:L/16 --workdir /mnt/runs/l16 "
ESCAPED += r"--config.data.train=folder\(\'my\ photos\'\)"


def bash(root, name, *arguments, code=0, **variables):
    """What a script prints."""
    env = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "JAX_PLATFORMS": "cpu"} | variables
    done = subprocess.run(
        ["bash", f"launch/{name}", *arguments],
        cwd=root,
        env=env,
        capture_output=True,
        text=True,
        timeout=jobs.DEADLINE,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def programs(folder, **texts):
    """A `PATH` on which programs are stood in for by these lines of bash."""
    for name, text in texts.items():
        program = folder / name.replace("_", "-")
        program.write_text(f"#!/bin/bash\n{text}\n")
        program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_local_starts_each_process(root):
    printed = bash(root, "local.sh", "--dry-run", "3", *ARGUMENTS, PORT="1234").splitlines()
    assert printed == [
        f"mae-jax train {ESCAPED} --coordinator 127.0.0.1:1234 --processes 3 --process {i} "
        for i in range(3)
    ]


@pytest.mark.parametrize("arguments", [(), ("0",), ("--config", "x")])
def test_local_needs_a_number(root, arguments):
    assert "usage: bash launch/local.sh" in bash(root, "local.sh", *arguments, code=2)


@pytest.mark.parametrize("listed, gpus", [("3", 1), ("0,2,5", 3), ("GPU-a,GPU-b", 2)])
def test_local_gives_out_the_gpus_that_are_visible(root, listed, gpus):
    variables = {"JAX_PLATFORMS": "", "CUDA_VISIBLE_DEVICES": listed, "PORT": "1"}
    printed = bash(root, "local.sh", "--dry-run", str(gpus), **variables).splitlines()
    assert [line.split("--local-devices ")[1] for line in printed] == [f"{i} " for i in range(gpus)]
    error = bash(root, "local.sh", "--dry-run", str(gpus + 1), code=2, **variables)
    assert f"{gpus + 1} processes need a GPU each, and there are {gpus}" in error


@pytest.mark.parametrize("listed", ["", "-1"])
def test_local_sees_no_gpu_where_none_is_visible(root, listed):
    printed = bash(
        root, "local.sh", "--dry-run", "9", JAX_PLATFORMS="", CUDA_VISIBLE_DEVICES=listed
    )
    assert printed.count("mae-jax train") == 9 and "--local-devices" not in printed


@pytest.mark.parametrize("count, ended", [(1, 75), (1, 137), (2, 75)])
def test_local_keeps_the_code_after_a_signal_between_two_waits(root, tmp_path, count, ended):
    """Bash signals itself right before it first waits, when no waiting is there to be ended."""
    early = tmp_path / "early"
    early.write_text(
        "trap 'if [[ $BASH_COMMAND == wait* && -z ${sent:-} ]]; then"
        " sent=1; until [ -e ready ]; do sleep 0.02; done; kill -TERM $$; fi' DEBUG\n"
    )
    early.write_text(early.read_text().replace("ready", str(tmp_path / "ready")))
    path = programs(
        tmp_path,
        mae_jax=f"trap 'touch {tmp_path}/told' TERM; [[ $* != *'--process 0'* ]] || "
        f"touch {tmp_path}/ready; until [ -e {tmp_path}/told ]; do sleep 0.02; done; exit {ended}",
    )
    bash(root, "local.sh", str(count), code=ended, BASH_ENV=str(early), PATH=path)


def test_slurm_is_told_in_time_and_requeues(root):
    printed = bash(root, "slurm.sh", "--dry-run", *ARGUMENTS)
    assert "#SBATCH --signal=TERM@300\n" in printed and "#SBATCH --requeue\n" in printed
    assert f"mae-jax train {ESCAPED}" in printed and "\nsrun " in printed
    assert "on exit code 75: scontrol requeue $SLURM_JOB_ID" in printed


@pytest.mark.parametrize("ended", [0, 2, 75])
def test_slurm_requeues_after_75_only(root, tmp_path, ended):
    path = programs(
        tmp_path, srun=f"exit {ended}", scontrol='echo "scontrol $*"; exit 1', mae_jax="exit 9"
    )
    env = {"PATH": path, "SLURM_SUBMIT_DIR": str(tmp_path)}
    done = subprocess.run(
        ["bash", root / "launch" / "slurm.sh", "--config", "x"],
        env=env | {"SLURM_JOB_ID": "7"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == ended
    assert ("scontrol requeue 7" in done.stdout) == (ended == 75)
    assert ("was not requeued" in done.stderr) == (ended == 75)


def test_launchers_say_what_they_need(root, tmp_path):
    for name in ("bash", "dirname", "find", "wc"):
        (tmp_path / name).symlink_to(shutil.which(name))
    error = bash(root, "local.sh", "1", code=2, PATH=str(tmp_path))
    assert error == ("launch/local.sh: mae-jax is not on the PATH: source .venv/bin/activate\n")
    error = bash(root, "slurm.sh", code=2)
    assert error == "launch/slurm.sh: start it with sbatch, or give --dry-run\n"
    error = bash(root, "slurm.sh", code=2, PATH=str(tmp_path), SLURM_SUBMIT_DIR=str(tmp_path))
    assert error.startswith("launch/slurm.sh: mae-jax is not on the PATH: create .venv in /")


def test_tpu_pod_dry_run_makes_installs_and_trains(root):
    printed = bash(root, "tpu_pod.sh", "--dry-run", *ARGUMENTS, **TPU)
    assert printed.endswith(f"until you run: {DELETE}\n")
    first = "gcloud compute tpus queued-resources"
    steps = [
        DELETE,
        f"{first} create mae --node-id=mae --zone=us-east5-b --accelerator-type=v6e-32 "
        "--runtime-version=v2-alpha-tpuv6e --spot",
        "gcloud compute tpus queued-resources scp /tmp/mae.tar.gz mae:mae_jax.tar.gz",
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
    assert printed.count("--zone=us-east5-b --node=all --worker=all --batch-size=all") == 4
    printed = bash(root, "tpu_pod.sh", "--dry-run", *ARGUMENTS, **TPU, PROVISION="")
    assert "--spot" not in printed


def test_tpu_pod_makes_several_slices(root):
    printed = bash(root, "tpu_pod.sh", "--dry-run", *ARGUMENTS, **TPU, SLICES="4")
    assert "create mae --node-count=4 --node-prefix=mae --zone=us-east5-b" in printed
    assert "--node-id" not in printed


@pytest.mark.parametrize(
    ("script", "changes", "reason"),
    [
        ("tpu_pod.sh", dict(SLICES="0"), "SLICES=0 must be a positive integer"),
        (
            "tpu_pod.sh",
            dict(TYPE="v6e"),
            "TYPE=v6e must be of the form v5litepod-16, v6e-32 or v5p-64; for",
        ),
        ("tpu_pod.sh", dict(TYPE="tpu7x-64"), "TPU7x use launch/kubernetes.sh"),
        ("kubernetes.sh", dict(HOSTS="4"), "HOSTS=4 times CHIPS=4 are not the 32 chips of 4x8"),
        ("kubernetes.sh", dict(CHIPS="8"), "HOSTS=8 times CHIPS=8 are not the 32 chips of 4x8"),
        ("kubernetes.sh", dict(TOPOLOGY="2x2x4"), "are not the 16 chips of 2x2x4"),
        ("kubernetes.sh", dict(TOPOLOGY="4x"), "TOPOLOGY=4x must be of the form 4x4, or 2x2x4"),
        ("kubernetes.sh", dict(SLICES="two"), "SLICES=two must be a positive integer"),
        (
            "kubernetes.sh",
            dict(SLICES="2", HOSTS="1", TOPOLOGY="2x2"),
            "SLICES=2: GKE joins slices of several hosts only: choose a larger TOPOLOGY",
        ),
    ],
)
def test_tpus_that_do_not_fit_are_refused(root, script, changes, reason):
    variables = (TPU if script == "tpu_pod.sh" else POD) | changes
    error = bash(root, script, "--dry-run", *ARGUMENTS, code=2, **variables)
    assert error.startswith(f"launch/{script}: ") and reason in error and error.count("\n") == 1


@pytest.mark.parametrize("script, variables", [("tpu_pod.sh", TPU), ("kubernetes.sh", POD)])
def test_dry_run_without_a_shared_workdir_is_refused(root, script, variables):
    error = bash(root, script, "--dry-run", "--config", "x", code=2, **variables)
    assert error.startswith(f"launch/{script}: give --workdir, on ") and error.count("\n") == 1
    bash(root, script, "--dry-run", "--config", "x", "--workdir=/mnt/x", **variables)


@pytest.mark.parametrize("script, variables", [("tpu_pod.sh", TPU), ("kubernetes.sh", POD)])
def test_a_variable_that_is_not_set_or_empty_is_named(root, script, variables):
    for name in set(variables) - {"BUCKET"}:
        for others in ({k: v for k, v in variables.items() if k != name}, variables | {name: ""}):
            error = bash(root, script, "--dry-run", *ARGUMENTS, code=2, **others)
            assert error.startswith(f"launch/{script}: set {name}: ") and error.count("\n") == 1


def tpu_pod(root, folder, *, code, **steps):
    """What `gcloud` was asked to do, in words; `steps` are lines of bash that it answers with."""
    answers = "\n".join(f"{name}) {text} ;;" for name, text in steps.items())
    path = programs(
        folder,
        gcloud=f"""cd {folder}
        case "$*" in
            *" create "*) step=create ;;
            *" delete "*) step=delete ;;
            *" describe "*) step=describe ;;
            *" scp "*) step=copy ;;
            *astral*) step=install ;;
            *gcsfuse*) step=mount ;;
            *) step=train ;;
        esac
        if [ $step != describe ]; then echo $step >>steps; fi
        printf '%s' "$*" >$step.txt
        case $step in
        {answers}
        esac""",
        sleep="exit 0",
        tar="exit 0",
    )
    printed = bash(root, "tpu_pod.sh", *ARGUMENTS, **TPU, PATH=path, STARTS="3", code=code)
    assert code or printed.endswith(f"until you run: {DELETE}\n")
    return (folder / "steps").read_text().split()


def ends(*codes):
    """Trainings that end with these codes, in this order."""
    texts = " ".join(map(str, codes))
    return (
        f"codes=({texts}); n=$(grep -c train steps); "
        'echo "mae-jax train: exit code ${codes[n - 1]}"'
    )


def test_tpu_pod_gives_up_on_a_tpu_that_it_cannot_make(root, tmp_path):
    steps = tpu_pod(root, tmp_path, code=1, describe="exit 1", create="exit 1")
    assert steps == ["create"] * 3


def test_tpu_pod_gives_up_on_a_tpu_that_is_gone_again(root, tmp_path):
    assert tpu_pod(root, tmp_path, code=1, describe="exit 1") == ["create"] * 3


@pytest.mark.parametrize("state", ["ACCEPTED", "PROVISIONING", "CREATING", "WAITING_FOR_RESOURCES"])
def test_tpu_pod_keeps_its_place_in_the_queue(root, tmp_path, state):
    queued = f"echo x >>asked; [ $(grep -c x asked) -lt 5 ] && echo {state} || echo ACTIVE"
    steps = tpu_pod(root, tmp_path, code=0, describe=queued, train=ends(0))
    assert steps == ["copy", "install", "mount", "train"], "nothing is deleted or made"


def test_tpu_pod_waits_on_after_a_question_that_had_no_answer(root, tmp_path):
    queued = """echo x >>asked; case $(grep -c x asked) in
        3) exit 1 ;; [1-6]) echo ACCEPTED ;; *) echo ACTIVE ;; esac"""
    steps = tpu_pod(root, tmp_path, code=0, describe=queued, train=ends(0))
    assert steps == ["copy", "install", "mount", "train"]


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDING", "SUSPENDED"])
def test_tpu_pod_makes_another_for_one_that_has_failed(root, tmp_path, state):
    failed = f"echo x >>asked; [ $(grep -c x asked) -lt 3 ] && echo {state} || echo ACTIVE"
    steps = tpu_pod(root, tmp_path, code=0, describe=failed, train=ends(0))
    assert steps == ["delete", "create", "copy", "install", "mount", "train"]


def test_tpu_pod_installs_once_on_a_tpu_that_is_there(root, tmp_path):
    steps = tpu_pod(root, tmp_path, code=0, describe="echo ACTIVE", train=ends(75, 0))
    assert steps == ["copy", "install", "mount", "train", "train"]


def test_tpu_pod_installs_again_after_a_half_done_one(root, tmp_path):
    fails = "[ $(grep -c install steps) -gt 1 ]"
    steps = tpu_pod(root, tmp_path, code=0, describe="echo ACTIVE", install=fails, train=ends(0))
    assert steps == ["copy", "install", "copy", "install", "mount", "train"]


def test_tpu_pod_installs_again_on_a_new_tpu(root, tmp_path):
    state = "[ $(grep -c . steps) = 4 ] && echo SUSPENDED || echo ACTIVE"  # after one training
    steps = tpu_pod(root, tmp_path, code=0, describe=state, train=ends(75, 0))
    once = ["copy", "install", "mount", "train"]
    assert steps == [*once, "delete", "create", *once]


def test_tpu_pod_ends_the_old_training_and_not_its_own_shell(root, tmp_path):
    tpu_pod(root, tmp_path, code=2, describe="echo ACTIVE", train=ends(2))
    remote = (tmp_path / "train.txt").read_text().split("--command=")[1]
    (pattern,) = set(re.findall(r"p(?:kill -TERM|grep) -f '([^']*)'", remote))
    old = "/x/.venv/bin/python3.12 .venv/bin/mae-jax train --config a"
    lines = [old, old.replace("python3.12", "python"), f"bash -c {remote}", f"sh -c '{old}'"]
    lines = [" ".join(line.split()) for line in lines]
    found = subprocess.run(
        ["grep", "-nE", pattern], input="\n".join(lines), capture_output=True, text=True
    )
    assert [line[0] for line in found.stdout.splitlines()] == ["1", "2"]
    assert remote.index("pkill") < remote.index("pgrep") < remote.index(".venv/bin/mae-jax train")
    assert "pkill" in (tmp_path / "install.txt").read_text(), "before its code is replaced"


def test_tpu_pod_mounts_a_bucket_that_the_user_can_write_to(root, tmp_path):
    tpu_pod(root, tmp_path, code=0, describe="echo ACTIVE", train=ends(0))
    words = (tmp_path / "mount.txt").read_text().split()
    flags = "--uid $(id -u) --gid $(id -g) --implicit-dirs --rename-dir-limit 100000"
    flags += " --metadata-cache-ttl-secs 0 mine /mnt"
    assert " ".join(words).endswith(f"sudo gcsfuse -o allow_other {flags}")
    install = (tmp_path / "install.txt").read_text()
    assert "uv venv --allow-existing --python 3.12 .venv" in install
    assert "uv pip install -q -e '.[tpu]'" in install and "python3 -m venv" not in install


@pytest.mark.parametrize("spot", ["true", "false"])
def test_kubernetes_dry_run_fills_the_manifest(root, spot):
    yaml = pytest.importorskip("yaml")
    text = bash(root, "kubernetes.sh", "--dry-run", *ARGUMENTS, **POD, SPOT=spot, SLICES="2")
    manifest = yaml.safe_load(text)
    assert manifest["spec"]["replicatedJobs"][0]["replicas"] == 2
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


def test_test_tpu_installs_what_jax_asks_for_and_runs_what_needs_it(root, tmp_path):
    (copy := tmp_path / "copy" / "launch").mkdir(parents=True)
    for name in ("test_tpu.sh", "compilers.sh", "environment.sh"):
        shutil.copy(root / "launch" / name, copy)
    (tests := copy.parent / "tests").mkdir()
    (tests / "test_a.py").write_text("from tests.helpers.compilers import needs_libtpu")
    (tests / "test_b.py").write_text("# needs_libtpu")
    path = programs(
        tmp_path,
        python=f"""if [ "$1" = -c ]; then exec {sys.executable} "$@"; fi
        if [[ $* == *--target* ]]; then mkdir -p build/compilers; fi
        echo "$PYTHONPATH: $*" >>{tmp_path}/said""",
    )
    wanted = next(one for one in requires("jax") if one.startswith("libtpu")).split(";")[0]
    for runs in (1, 2):
        bash(copy.parent, "test_tpu.sh", "-x", PATH=path, VIRTUAL_ENV="/nowhere", PYTHONPATH="p")
        said = (tmp_path / "said").read_text()
        assert said.count(f"--target build/compilers {wanted} jax-cuda12-plugin==") == 1, "twice"
        assert said.count("build/compilers:p: -m pytest -n auto") == runs
    assert said.endswith(" tests/test_a.py -x\n")


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
def test_shellcheck_has_nothing_to_say(root):
    names = [f"launch/{name}.sh" for name in NAMES]
    done = subprocess.run(["shellcheck", *names], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.thorough  # test_elastic.py stops two processes, without the script
def test_two_real_processes_stop_and_go_on(root, tmp_path):
    """`mae-jax` on the path is this checkout's."""
    path = programs(tmp_path, mae_jax=f'exec {sys.executable} -m mae_jax "$@"')
    run = tmp_path / "run"
    options = ["--config", CONFIG, "--workdir", str(run)]
    options += ["--config.evals.run=knn(k=3)", "--config.evals.figures=curves"]
    options += ["--config.method.args.target=pixels(normalize=False)"]  # said at the start, once
    script = subprocess.Popen(
        ["bash", "launch/local.sh", "2", *options],
        cwd=root,
        env=jobs.environment() | {"PATH": path},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    jobs.until(lambda: losses(run), script)
    script.send_signal(signal.SIGTERM)
    _, error = script.communicate(timeout=jobs.DEADLINE)
    assert script.returncode == 75 and "run again to resume" in error, error
    assert error.count("with 3 change(s)") == 1, "the second process is quiet"
    children = jobs.start(tmp_path / "again", "train", *options, seconds=60)
    one, two = jobs.wait(tmp_path / "again", children)
    assert (one.code, two.code) == (0, 0) and "resuming from step" in one.error, one.error
    assert not re.search("Gloo|Traceback", one.error + two.error), one.error + two.error
    assert [step for step, _ in losses(run)] == list(range(1, 41))
    assert json.loads((run / "results.json").read_text())["final"]
