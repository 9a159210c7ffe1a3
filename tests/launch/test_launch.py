"""The scripts of launch/ as far as they go without a cluster; see test_slurm.py for SLURM."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from absl import flags

import cellcount_jax.main  # noqa: F401  (it defines the flags)
from cellcount_jax import config as settings
from cellcount_jax import variants

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *(ROOT / "tests").glob("*.sh")])


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_well_formed(script: Path) -> None:
    assert script.read_text().startswith("#!/usr/bin/env bash\n# ")
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


# --- Kubernetes


@pytest.fixture(scope="module")
def jobset() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
    return content


def parts(jobset: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """The job, its container and the container's environment."""
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    return job, container, {entry["name"]: entry["value"] for entry in container["env"]}


def test_the_jobset_has_one_process_for_each_host(jobset: dict[str, Any]) -> None:
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert [job["replicas"] for job in jobset["spec"]["replicatedJobs"]] == [1]
    job, container, environment = parts(jobset)
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"] == int(environment["NUM_PROCESSES"]) > 1
    # A failed pod is not replaced alone: the JobSet starts all of them again.
    assert job["backoffLimit"] == 0 and job["template"]["spec"]["restartPolicy"] == "Never"
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0
    assert job["template"]["spec"]["terminationGracePeriodSeconds"] > 30
    assert all(isinstance(value, str) for value in environment.values())
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in job["template"]["spec"]["volumes"]}


def test_the_jobset_s_coordinator_is_its_first_pod(jobset: dict[str, Any]) -> None:
    network = jobset["spec"]["network"]
    assert network["enableDNSHostnames"] and network["publishNotReadyAddresses"]
    name, job = jobset["metadata"]["name"], jobset["spec"]["replicatedJobs"][0]["name"]
    host, port = parts(jobset)[2]["COORDINATOR"].split(":")
    assert host == f"{name}-{job}-0-0.{network.get('subdomain', name)}"
    # Ports below need rights, and those above are handed out to connections.
    assert 1024 <= int(port) < 32768
    # The commands in its comments.
    comments = (LAUNCH / "jobset.yaml").read_text()
    assert f"jobset-name={name}," in comments and f"delete jobset {name} " in comments


def started(jobset: dict[str, Any], folder: Path, python: str) -> subprocess.Popen[str]:
    """Starts the script of the second pod, with a stand-in for python."""
    executable(folder / "python", python)
    _, container, environment = parts(jobset)
    shell, option = container["command"]
    (script,) = container["args"]
    assert option == "-c"
    assert "$(" not in script, "Kubernetes would replace it"
    path = f"{folder}:{os.environ['PATH']}"
    return subprocess.Popen(
        [shell, option, script],
        env={**environment, "PATH": path, "OUT": str(folder), "JOB_COMPLETION_INDEX": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_jobset_s_command_is_one_that_main_takes(
    jobset: dict[str, Any], tmp_path: Path
) -> None:
    process = started(jobset, tmp_path, '#!/bin/sh\nprintf "%s\\n" "$@"\nexit 3\n')
    out, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (3, "")
    module, *arguments = out.splitlines()[1:]
    assert out.startswith("-m\n") and module == "cellcount_jax.main"
    given = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
    environment = parts(jobset)[2]
    assert given["coordinator"] == environment["COORDINATOR"]
    assert (given["num_processes"], given["process_id"]) == (environment["NUM_PROCESSES"], "1")
    known = settings.flatten(settings.default_config().to_dict())
    for name in given:
        assert name in flags.FLAGS or name.removeprefix("config.") in known
    file, _, variant = given["config"].partition(":")
    assert (ROOT / file).is_file() and variant in variants.VARIANTS
    mount = parts(jobset)[1]["volumeMounts"][0]["mountPath"]
    assert given["workdir"].startswith(f"{mount}/")
    assert given["config.data.dir"].startswith(f"{mount}/")


def test_a_pod_that_is_told_to_end_does_not_count_as_done(
    jobset: dict[str, Any], tmp_path: Path
) -> None:
    python = """#!/usr/bin/env bash
    trap 'sleep 0.3; echo checkpoint; exit 0' TERM
    touch "$OUT/ready"
    while true; do sleep 0.05; done
    """
    process = started(jobset, tmp_path, python)
    until = time.monotonic() + 60
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=20)
    assert (process.returncode, out, errors) == (143, "checkpoint\n", "")


def test_a_pod_whose_training_is_over_is_done(jobset: dict[str, Any], tmp_path: Path) -> None:
    process = started(jobset, tmp_path, "#!/bin/sh\nexit 0\n")
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 0


# --- TPU VM

# Notes each call; 'describe' says how many hosts there are, 'scp' and 'ssh' act on each, a folder.
GCLOUD = """#!/usr/bin/env bash
set -euo pipefail
printf '%s\\n' "${*//$'\\n'/ }" >>"$FAKE/calls"
case $4 in
  describe) echo "$HOSTS" ;;
  scp) for ((i = 0; i < HOSTS; i++)); do mkdir -p "$FAKE/$i"; cp "$5" "$FAKE/$i/${6#*:}"; done ;;
  ssh)
    for argument in "$@"; do
      [[ $argument != --command=* ]] || command=${argument#--command=}
    done
    for ((i = 0; i < HOSTS; i++)); do HOME=$FAKE/$i bash -c "$command"; done
    ;;
esac
"""
# In place of the interpreter and the installation on a host.
PYTHON = '#!/bin/sh\nfor argument in "$@"; do printf "%s\\n" "$argument"; done >"$HOME/arguments"\n'
SETUP = 'mkdir -p .venv/bin && cp python.sh .venv/bin/python && echo "$EXTRAS" >"$HOME/extras"\n'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with the script, and stand-ins for what it starts."""
    folder = tmp_path / "checkout"
    executable(folder / "launch" / "tpu_vm.sh", (LAUNCH / "tpu_vm.sh").read_text())
    executable(folder / "launch" / "setup_venv.sh", SETUP)
    executable(folder / "python.sh", PYTHON)
    executable(tmp_path / "bin" / "gcloud", GCLOUD)
    (folder / "a b.txt").write_text("tracked")
    for command in (["git", "init", "--quiet"], ["git", "add", "."]):
        subprocess.run(command, cwd=folder, check=True)
    (folder / "untracked").write_text("stays")
    return folder


def tpu_vm(checkout: Path, *arguments: str, hosts: str = "1") -> tuple[int, str, list[str]]:
    """Runs the script: its status, its messages and its calls of gcloud."""
    fake = checkout.parent
    done = subprocess.run(
        ["bash", "launch/tpu_vm.sh", *arguments],
        cwd=checkout,
        env={
            **os.environ,
            "PATH": f"{fake / 'bin'}:{os.environ['PATH']}",
            "FAKE": str(fake),
            "HOSTS": hosts,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    calls = fake / "calls"
    return done.returncode, done.stderr, calls.read_text().splitlines() if calls.exists() else []


TPU = ("my-tpu", "europe-west4-b")


@pytest.mark.parametrize("hosts", [1, 4])
def test_every_host_of_a_tpu_runs_the_same_command(checkout: Path, hosts: int) -> None:
    given = ["--config=configs/vgg.py:paper", "--workdir=/mnt/a b", '--config.name=it\'s "$HOME"']
    status, errors, calls = tpu_vm(checkout, *TPU, *given, hosts=str(hosts))
    assert status == 0, errors
    assert [call.split()[:4] for call in calls] == [
        ["compute", "tpus", "tpu-vm", verb] for verb in ("describe", "scp", "ssh")
    ]
    assert all(call.endswith("--zone=europe-west4-b") for call in calls)
    assert [call.count("--worker=all") for call in calls] == [0, 1, 1]
    expected = ["-m", "cellcount_jax.main", *given] + ["--coordinator=auto"] * (hosts > 1)
    for host in range(hosts):
        home = checkout.parent / str(host)
        assert (home / "arguments").read_text().splitlines() == expected
        assert (home / "extras").read_text() == "tpu\n"
        assert (home / "cellcount_jax" / "a b.txt").read_text() == "tracked"
        assert not (home / "cellcount_jax" / "untracked").exists()
    assert ("worker 0 writes the results" in errors) == (hosts > 1)


@pytest.mark.parametrize(
    ("arguments", "hosts", "message"),
    [
        ([], "1", "usage: bash launch/tpu_vm.sh NAME ZONE"),
        (["My_TPU", TPU[1], "--config=c.py"], "1", "NAME is 'My_TPU'; a TPU VM's name is"),
        ([TPU[0], "europe", "--config=c.py"], "1", "ZONE is 'europe'; a zone looks like"),
        ([*TPU, "--workdir=runs/a"], "1", "no --config among the arguments of main: --workdir="),
        ([*TPU, "--config=c.py"], "", "my-tpu has no hosts; is it ready?"),
        ([*TPU, "--config=c.py"], "0", "my-tpu has 0 hosts; is it ready?"),
        ([*TPU, "--config=c.py", "--coordinator=a:1"], "2", "--coordinator is for this script"),
    ],
)
def test_what_tpu_vm_refuses(
    checkout: Path, arguments: list[str], hosts: str, message: str
) -> None:
    status, errors, calls = tpu_vm(checkout, *arguments, hosts=hosts)
    assert status == 2 and message in errors
    # Asking how many hosts there are is all that it may have done.
    assert not calls or (len(calls) == 1 and " describe " in calls[0])


# --- Other systems, containers


@pytest.mark.skipif(not shutil.which("pwsh"), reason="PowerShell is not installed")
def test_the_powershell_script_can_be_parsed() -> None:
    script = LAUNCH / "setup_venv.ps1"
    parse = f"[void][ScriptBlock]::Create((Get-Content -Raw '{script}'))"
    done = subprocess.run(["pwsh", "-NoProfile", "-Command", parse], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_both_set_up_scripts_take_the_same_pythons() -> None:
    for name in ("setup_venv.sh", "setup_venv.ps1"):
        text = (LAUNCH / name).read_text()
        assert r"^3\.1[123]$" in text and "-c constraints.txt -e" in text, name


def test_other_systems_run_the_same_scripts() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    job = workflow["jobs"]["test"]
    matrix = job["strategy"]["matrix"]
    assert [system.split("-")[0] for system in matrix["system"]] == ["ubuntu", "macos", "windows"]
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
    commands = "\n".join(step.get("run", "") for step in job["steps"])
    assert "bash .ci/run" in commands and "EXTRAS=label bash launch/test.sh" in commands


def test_the_container_is_made_of_files_that_are_there() -> None:
    text = (LAUNCH / "Dockerfile").read_text()
    for line in text.splitlines():
        if line.startswith("COPY "):
            *sources, _ = line.split()[1:]
            assert all((ROOT / source).exists() for source in sources), line
    if shutil.which("hadolint"):
        subprocess.run(["hadolint", LAUNCH / "Dockerfile"], check=True)
