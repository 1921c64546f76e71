"""Signals that arrive while a module is imported, outside a run and within one."""

import signal
import subprocess
import sys

import pytest

from netdepth.training.signals import ignore_signals, signals_as_errors

SLOW = "print('importing', flush=True)\nimport time\ntime.sleep(60)\n"
COMMAND = """
from netdepth.training.signals import Terminated, signals_as_interrupts
with signals_as_interrupts():
    try:
        import slow
    except BaseException as error:
        print("an exception in an import:", repr(error))
"""
RUN = """
from netdepth.training.signals import signals_as_errors, signals_as_interrupts
from netdepth.errors import Interrupted
with signals_as_interrupts(), signals_as_errors():
    try:
        import slow
    except (KeyboardInterrupt, Interrupted):
        print("saved")
"""


def struck_while_importing(folder, code, number):
    (folder / "slow.py").write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(number)
        said, complained = process.communicate(timeout=120)
    return process.returncode, said, complained


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_ends_at_once_outside_a_run_and_saves_everything_within_one(tmp_path, number):
    assert struck_while_importing(tmp_path, COMMAND, number) == (128 + number, "", "netdepth: error: interrupted\n")
    assert struck_while_importing(tmp_path, RUN, number) == (0, "saved\n", "")


def test_a_background_job_goes_on_ignoring_ctrl_c():
    code = (
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from netdepth.training.signals import signals_as_interrupts\n"
        "with signals_as_interrupts():\n    signal.raise_signal(signal.SIGINT)\nprint('goes on')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "goes on\n")


def test_a_run_that_is_ending_ignores_further_signals_and_gives_the_handlers_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with signals_as_errors():
        ignore_signals()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
