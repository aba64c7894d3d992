"""Environment variables: every one that umpteen sets or reads, and what it means.

The reference page of variables is made of these tables. Standard library alone.
"""

from __future__ import annotations

__all__ = [
    "ATTEMPT",
    "CONFIG_HOME",
    "CUDA_DEVICES",
    "DATA_HOME",
    "EDITOR",
    "GPUS",
    "JOB",
    "LEASES",
    "OUTPUT",
    "PATH",
    "PLAIN_RESULTS_DIR",
    "PORTABLE",
    "RAY_ADDRESS",
    "RESULTS_DIR",
    "RESULTS_OPTIONS",
    "RUNNER",
    "SATURN_BASE_URL",
    "SATURN_OUTPUT",
    "SATURN_RANK",
    "SATURN_RESULTS_DIR",
    "SATURN_TOKEN",
    "SBATCH_PARTITION",
    "SBATCH_TIMELIMIT",
    "SLOT",
    "SLURM_CONF",
    "SSH",
    "STORE_PATIENCE_S",
    "SUDO_UID",
    "SYNCED",
    "TASK",
    "TASK_INDEX",
    "TASK_VARIABLES",
    "TOOL_VARIABLES",
    "VISUAL",
    "WORKER_THREADS",
]

JOB = "UMPTEEN_JOB"
TASK = "UMPTEEN_TASK"
TASK_INDEX = "UMPTEEN_TASK_INDEX"
ATTEMPT = "UMPTEEN_ATTEMPT"
SLOT = "UMPTEEN_SLOT"
RESULTS_DIR = "UMPTEEN_RESULTS_DIR"
OUTPUT = "UMPTEEN_OUTPUT"
RUNNER = "UMPTEEN_RUNNER"
SYNCED = "UMPTEEN_SYNCED"
CUDA_DEVICES = "CUDA_VISIBLE_DEVICES"
SATURN_RANK = "SATURN_RUN_LOCAL_RANK"
SATURN_RESULTS_DIR = "SATURN_RUN_LOCAL_RESULTS_DIR"
SATURN_OUTPUT = "SATURN_RUN_REMOTE_OUTPUT_PATH"
PLAIN_RESULTS_DIR = "RESULTS_DIR"
LEASES = "UMPTEEN_LEASES"
GPUS = "UMPTEEN_GPUS"
PORTABLE = "UMPTEEN_PORTABLE"
STORE_PATIENCE_S = "UMPTEEN_STORE_PATIENCE_S"
RESULTS_OPTIONS = "UMPTEEN_RESULTS_OPTIONS"
WORKER_THREADS = "UMPTEEN_WORKER_THREADS"
RAY_ADDRESS = "RAY_ADDRESS"
SATURN_BASE_URL = "SATURN_BASE_URL"
SATURN_TOKEN = "SATURN_TOKEN"  # noqa: S105 -- its name
DATA_HOME = "XDG_DATA_HOME"
CONFIG_HOME = "XDG_CONFIG_HOME"
VISUAL = "VISUAL"
EDITOR = "EDITOR"
SUDO_UID = "SUDO_UID"
SSH = "UMPTEEN_SSH"
SLURM_CONF = "SLURM_CONF"
SBATCH_PARTITION = "SBATCH_PARTITION"
SBATCH_TIMELIMIT = "SBATCH_TIMELIMIT"
PATH = "PATH"

# What a task finds beside what the runner inherited.
TASK_VARIABLES = {
    JOB: "The job's name.",
    TASK: "The task's name.",
    TASK_INDEX: "Its index in the job, from 0; stays the same in later runs.",
    ATTEMPT: "1 the first time this task runs, then 2, 3, …",
    SLOT: (
        "The slot it runs in, from 0 to `slots` - 1; no two running tasks of a runner share one."
    ),
    RESULTS_DIR: (
        "A folder, empty at each attempt: what is written there is kept as `results/`. "
        "Checkpoints go [elsewhere](../recipes.md#checkpoints)."
    ),
    OUTPUT: "The folder of the task's outputs.",
    RUNNER: "The runner's token. Leave it alone: it is how leftovers are found.",
    SATURN_RANK: "As `UMPTEEN_SLOT`, for programs written for `sc batch`.",
    SATURN_RESULTS_DIR: (
        "As `UMPTEEN_RESULTS_DIR`, for the same: what the batch file says, to the letter, "
        "else with a `/` at its end."
    ),
    SATURN_OUTPUT: (
        "As `UMPTEEN_OUTPUT`, for the same; in `umpteen batch` what the file says, to the letter."
    ),
    PLAIN_RESULTS_DIR: "As `UMPTEEN_RESULTS_DIR`; in `umpteen batch` your own, where you have one.",
    SYNCED: (
        "The folder that was synced first, where the job syncs any, as a place on this "
        "machine. See [syncing](../syncing.md)."
    ),
    CUDA_DEVICES: "The GPUs that are the task's own, where it says `gpus`.",
}

# What umpteen reads itself.
TOOL_VARIABLES = {
    LEASES: (
        "Where the folder of leases is made, `umpteen-UID`. Without it: `/var/tmp`. It "
        "must be on a local disk, and the same in every shell that runs the same jobs."
    ),
    GPUS: "The GPUs that tasks may use: a count, or their names with commas between.",
    CUDA_DEVICES: "Where UMPTEEN_GPUS says nothing: the GPUs that tasks may use.",
    PORTABLE: "Not empty: use only what every Unix has, no pidfd, epoll or `/proc`.",
    STORE_PATIENCE_S: (
        "Seconds for which results that cannot be written are tried again. Without it: 60."
    ),
    RESULTS_OPTIONS: (
        "Options of results that are in no folder, as JSON. What a job file that is given "
        "says counts more; what is remembered of one counts less."
    ),
    RUNNER: "Set by umpteen for its runners, replacing what was there.",
    RAY_ADDRESS: (
        "The Ray cluster that `--executor ray` uses where no address is given: "
        "`HOST:6379`, `ray://HOST:10001`."
    ),
    SATURN_BASE_URL: "Where Saturn Cloud is, for results at `sfs://`; set there by itself.",
    SATURN_TOKEN: "Your token for the same.",
    DATA_HOME: (
        "The folder of the registry that `umpteen ls` reads is `umpteen/jobs` in it, and that of "
        "bundles, where no machine is configured, `umpteen/bundles`. Without it: `~/.local/share`."
    ),
    CONFIG_HOME: (
        "The file with the [machines](../bundles.md#machines) is `umpteen/config.toml` in it. "
        "Without it: `~/.config`."
    ),
    VISUAL: "The editor that `umpteen config` opens.",
    EDITOR: "The same, where VISUAL says nothing; then git's `core.editor`, nano, vi.",
    SSH: "How ssh is called, as words of shell: `ssh -F other_config`. Without it: `ssh`.",
    SLURM_CONF: "Slurm's own: which cluster its commands speak to.",
    SBATCH_TIMELIMIT: "Slurm's own: the time where the options say none, as a dry run shows it.",
    SBATCH_PARTITION: (
        "Slurm's own: the partition where the options name none, whose nodes say how large batches "
        "may be. So it is with the other variables of sbatch, which sbatch itself reads."
    ),
    SUDO_UID: "Set by `sudo`: folders of who called it count as root's own.",
    PATH: "Where a command's program is looked for, unless the task's `env` has its own.",
    WORKER_THREADS: (
        "Set by umpteen for its runners on a cluster: names of variables such as "
        "`OMP_NUM_THREADS` that limit the worker, and that a task with `cpus` gets anew."
    ),
}
