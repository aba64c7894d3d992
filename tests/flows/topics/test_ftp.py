"""An address of fsspec that names a host: the client of FTP, which has one connection for all."""

from __future__ import annotations

from tests.support.command import Umpteen
from tests.support.ftp import Ftp


def test_a_job_runs_there_again_and_is_removed(umpteen: Umpteen, ftp: Ftp) -> None:
    commands = ("echo {x}; echo {x} > $UMPTEEN_RESULTS_DIR/r", "x=1..3")
    done = umpteen("run", *commands, "--results", ftp.address)
    assert done.returncode == 0, done.stderr
    assert (ftp.path / "job/x=2/results/r").read_text() == "2\n"
    assert "3 done" in umpteen("status", ftp.address).stdout
    assert umpteen("logs", ftp.address, "x=3").stdout == "3\n"
    again = umpteen("run", *commands, "--results", ftp.address, "--rerun", "all")
    assert again.returncode == 0, again.stderr
    (earlier,) = (ftp.path / "job/x=1/attempts").iterdir()
    assert (earlier / "stdout").read_text() == "1\n"
    assert umpteen("results", ftp.address, "here").returncode == 0
    assert (umpteen.folder / "here/x=1/results/r").read_text() == "1\n"
    assert umpteen("rm", ftp.address, "--yes").returncode == 0
    assert not [path for path in ftp.path.rglob("*") if path.is_file()]


def test_a_host_that_is_not_there_is_one_error(umpteen: Umpteen) -> None:
    done = umpteen("status", "ftp://127.0.0.1:1/x")
    assert done.returncode == 3
    assert "lost or refused" in done.stderr
    assert "Traceback" not in done.stderr
