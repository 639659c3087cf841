"""Become another program that is told to stop when the process that started it dies.

Run as a script, `launch.py PARENT_PID PROGRAM ARGUMENT…`, with the parent's own process id. A
program of its own instead of code between fork and exec, where a process with threads must not
run Python.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Ask Linux for SIGTERM at the parent's death, then run the command in this process."""
    if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        sys.exit("prctl(PR_SET_PDEATHSIG) failed: this needs Linux")
    if os.getppid() != parent:
        sys.exit("the parent died before its child was ready")
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
