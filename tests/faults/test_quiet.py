"""No network but what was asked for, no secret in any file, servers on the loopback address alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.faults

SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef" * 2 + "01234567",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI-planted",
    "GITHUB_TOKEN": "ghp_planted0123456789",
    "DATABASE_URL": "postgres://user:planted-password@db/x",
    "HTTPS_PROXY_PASSWORD": "planted-proxy-password",
}
ARGUMENT = "planted-in-the-command-line"


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which every command has run, watched and with secrets around it, and what they said."""
    root = tmp_path_factory.mktemp("quiet")
    known = {name: value for name, value in os.environ.items() if not name.startswith(("NETDEPTH_", "WANDB_"))}
    environment = {**known, **SECRETS, "HOME": str(root), "XDG_CACHE_HOME": str(root / "cache")}
    script = Path(__file__).with_name("quiet.py")
    done = subprocess.run(
        [sys.executable, str(script), str(root), f"--password={ARGUMENT}"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=root,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return root, done.stdout + done.stderr


def test_no_command_asks_the_network(quiet: tuple[Path, str]) -> None:
    root, said = quiet
    codes = {tuple(argv): code for _, argv, code in map(json.loads, quiet_lines(said))}
    missing = [argv for argv, code in codes.items() if code != 0 and "mnist" not in argv]
    assert missing == [], said[-3000:]
    assert [code for argv, code in codes.items() if "mnist" in argv] == [74], "missing data are not downloaded"
    assert "netdepth data fetch mnist" in said
    asked = root / "asked.txt"
    assert not asked.exists(), asked.read_text()


def quiet_lines(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith('["QUIET"')]


def test_the_watch_sees_what_it_should(tmp_path: Path) -> None:
    from faults.quiet import WATCH

    (tmp_path / "sitecustomize.py").write_text(WATCH)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NETDEPTH_WATCH": str(tmp_path / "asked.txt")}
    outward = (
        "import urllib.request as u; u.urlopen('http://example.com')",
        "import socket; socket.create_server(('', 0))",
    )
    for code in outward:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 1
    assert len((tmp_path / "asked.txt").read_text().splitlines()) == 2


def test_no_secret_is_in_any_file(quiet: tuple[Path, str]) -> None:
    root, said = quiet
    files = [path for path in root.rglob("*") if path.is_file()]
    assert [path for path in files if path.name == "environment.json"]
    assert [path for path in files if path.suffix == ".wandb"]
    found = [
        (str(path.relative_to(root)), name)
        for path in files
        for name, secret in {**SECRETS, "argument": ARGUMENT}.items()
        if secret.encode() in path.read_bytes()
    ]
    assert found == []
    assert not [name for name, secret in SECRETS.items() if secret in said]


def test_the_board_listens_on_loopback_alone(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "events.out.tfevents.1.netdepth").touch()
    command = [sys.executable, "-m", "netdepth", "board", str(tmp_path), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as server:
        try:
            deadline = time.monotonic() + 120
            while port not in (found := listening(psutil.Process(server.pid))):
                assert server.poll() is None, "it ended"
                assert time.monotonic() < deadline, "it did not begin to listen"
                time.sleep(0.1)
        finally:
            started = psutil.Process(server.pid).children(True)
            server.terminate()
            server.wait(30)
    assert len(found) == 2, "TensorBoard and its data server"
    assert set(found.values()) <= {"127.0.0.1", "::1"}
    assert not psutil.wait_procs(started, 10)[1], "nothing is left behind"


def listening(server: psutil.Process) -> dict[int, str]:
    """The ports at which ``server`` and what it started listen, and their addresses."""
    found = [one for process in (server, *server.children(True)) for one in process.net_connections("tcp")]
    return {one.laddr.port: one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN}
