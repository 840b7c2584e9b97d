"""Keeps one `epost up` for a test process and takes it down when that process ends, however it ends.

    keeper.py ROOT COMMAND...

Its standard input is a pipe from the test. A line is an order, answered by one line: `start` runs the command and
answers with its pid; `interrupt` and `kill` send SIGINT or SIGKILL, wait, and answer with the exit code; `poll`
answers `running` or the exit code. When the pipe closes, because the test has ended or was killed itself, the
command is stopped and ROOT is removed, unless EPOST_KEEP is set.
"""

import os
import shutil
import signal
import subprocess
import sys

STOP_TIMEOUT_S = 30


def start(root, command):
    """Runs the command with its output in ROOT/up.out and ROOT/up.err."""
    with open(os.path.join(root, "up.out"), "ab") as out, open(os.path.join(root, "up.err"), "ab") as err:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)


def stop(process, how):
    """Sends the signal and returns the exit code; a process that does not stop in time is killed."""
    if process is None:
        return None
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return "timeout"
    return process.returncode


def main():
    """Serves orders until the pipe closes."""
    # A Ctrl-C at the terminal reaches the whole group; the end of the pipe is what counts here.
    # Handlers, not SIG_IGN: an ignored signal would stay ignored in the command.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: None)
    root, command = sys.argv[1], sys.argv[2:]
    process = None
    for order in iter(sys.stdin.readline, ""):
        order = order.strip()
        if order == "start":
            process = start(root, command)
            answer = process.pid
        elif order == "interrupt":
            answer = stop(process, signal.SIGINT)
        elif order == "kill":
            answer = stop(process, signal.SIGKILL)
        else:
            answer = "running" if process and process.poll() is None else process and process.returncode
        print(answer, flush=True)
    stop(process, signal.SIGTERM)
    if not os.environ.get("EPOST_KEEP"):
        shutil.rmtree(root, ignore_errors=True)


main()
