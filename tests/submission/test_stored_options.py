from __future__ import annotations

from pathlib import Path

from umpteen.store.address import open_store
from umpteen.submission.stored_options import leave_out_secrets

OPTIONS = {
    "scheduler_address": "tcp://host:8786",
    "cluster": {"kind": "LocalCluster", "api_key": "k", "Password": "p", "n_workers": 2},
    "runtime_env": {"env_vars": {"A": "1"}, "pip": ["numpy"]},
}


def test_folder_of_the_user_alone_keeps_all_options(tmp_path: Path) -> None:
    assert leave_out_secrets(open_store(str(tmp_path)), OPTIONS) == (OPTIONS, [])


def test_store_that_others_read_keeps_no_secret() -> None:
    store = open_store("memory://secrets/job")
    kept, left_out = leave_out_secrets(store, OPTIONS)
    assert kept == {
        "scheduler_address": "tcp://host:8786",
        "cluster": {"kind": "LocalCluster", "n_workers": 2},
        "runtime_env": {"pip": ["numpy"]},
    }
    assert left_out == ["cluster.api_key", "cluster.Password", "runtime_env.env_vars"]
    assert "api_key" in OPTIONS["cluster"]  # what was given is as it was
