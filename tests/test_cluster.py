"""What the environment says about other processes; joining them is tested in tests/train."""

import runpy

import pytest

from tests.conftest import ROOT
from vprompt_jax.config import sweep as sweeps
from vprompt_jax.process import cluster
from vprompt_jax.process.errors import UserError

pytestmark = pytest.mark.fast

BY_HAND = {"VPROMPT_COORDINATOR": "h:1", "VPROMPT_PROCESSES": "2", "VPROMPT_PROCESS": "0"}
STEP = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_PROCID": "1"}


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}, None),  # a shell inside of an allocation
        (STEP | {"SLURM_NTASKS": "1"}, None),
        (STEP | {"SLURM_NTASKS": "8"}, "slurm"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "ompi"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),  # any pod, alone
        ({"TPU_ML_PLATFORM": "JAX"}, "gcetpu"),
        ({"TPU_ML_PLATFORM": "JAX", "TPU_WORKER_HOSTNAMES": "a,b"}, "gketpu"),
        (STEP | {"SLURM_NTASKS": "8"} | BY_HAND, "deactivate"),
    ],
)
def test_the_environment_says_how_to_join(monkeypatch, environment, expected):
    monkeypatch.setattr("os.environ", environment)
    arguments = cluster._arguments()
    assert (arguments and arguments["cluster_detection_method"]) == expected
    if expected == "deactivate":
        assert arguments["coordinator_address"] == "h:1"
        assert (arguments["num_processes"], arguments["process_id"]) == (2, 0)


@pytest.mark.parametrize(
    "environment, message",
    [
        ({"VPROMPT_PROCESS": "0"}, "set all of VPROMPT_COORDINATOR, VPROMPT_PROCESSES"),
        (BY_HAND | {"VPROMPT_PROCESS": "first"}, "VPROMPT_PROCESS='first' must be a whole number"),
    ],
)
def test_a_contradiction_is_named(monkeypatch, environment, message):
    monkeypatch.setattr("os.environ", environment)
    with pytest.raises(UserError, match=message):
        cluster._arguments()


def test_one_run_of_a_sweep_by_name_or_number():
    config = runpy.run_path(str(ROOT / "configs" / "sweeps/masks.py"))["get_config"]()
    names = list(sweeps.expand(config))
    for which in (names[1], "1"):
        name, chosen = sweeps.choose(config, which)
        assert name == names[1]
        assert chosen.name == f"{config.name}-{name}"
    for which in ("nothing", str(len(names))):
        with pytest.raises(UserError, match=f"no run '{which}' in this config: 0 {names[0]}"):
            sweeps.choose(config, which)
