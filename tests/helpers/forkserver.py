"""Child processes that start warm: one parent imports what they need, and forks them.

A child behaves like `python -m MODULE ARGUMENTS`: it runs the module as `__main__` and ends as
Python ends, with its exit code, its traceback and its atexit functions. Importing costs 6 s of CPU,
a fork some milliseconds. Two things differ from a process of its own: all children of a parent hash
strings alike, and JAX has read the `JAX_*` variables already, so that other values of these get a
parent of their own.
"""

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
WARM = (
    "mae_jax.cli.commands",
    "mae_jax.sweeps.experiments",
    "mae_jax.train",
    "mae_jax.data.sources.fashion_scenes",
    "mae_jax.evals.knn",
    "mae_jax.methods.mae",
    "mae_jax.tasks.finetune",
)
"""Modules of the parent. None may start a thread or a backend of JAX when imported."""


class Server:
    """The parent of warm processes, a process of its own, started with the first child."""

    def __init__(self, env):
        ours, theirs = socket.socketpair()
        self.channel, self.env = ours, env
        command = [sys.executable, "-m", "tests.helpers.forkserver", str(theirs.fileno())]
        # When this process ends, so does the channel, and with it the server.
        self.process = subprocess.Popen(command, cwd=ROOT, env=env, pass_fds=[theirs.fileno()])
        theirs.close()

    def fork(self, request, files):
        """The PID of a new child, and a pipe that its exit code will come through."""
        status, theirs = os.pipe()
        sent = [*files, theirs]
        socket.send_fds(self.channel, [json.dumps(request).encode()], sent)
        os.close(theirs)
        reply = self.channel.recv(64)
        assert reply, "the fork server has ended: see its error above"
        return int(reply), status


_servers: dict[tuple, Server] = {}
_ended: list[float] = []


def used():
    """Seconds of CPU of the children that have ended, until all servers have."""
    return sum(_ended)


def close():
    """Ends all servers, and with them the children that still run."""
    for server in _servers.values():
        server.channel.close()
        server.process.wait()
    _servers.clear()
    _ended.clear()  # the system now counts them among the children of this process


class Child:
    """A warm process, used like `subprocess.Popen`; its output goes to files.

    Args:
        module: what `python -m` takes.
        arguments: of the command, each turned into a string.
        env: all environment variables.
        cwd: working directory.
        output: file for standard output and standard error; without it each goes to a temporary
            file of its own, for `communicate`.
    """

    def __init__(self, module, *arguments, env, cwd=ROOT, output=None):
        jax = tuple(sorted((k, v) for k, v in env.items() if k.startswith("JAX_")))
        server = _servers.get(jax)
        if server is None:
            server = _servers[jax] = Server(env)
        opened = output and open(output, "wb")
        self._files = [opened or tempfile.TemporaryFile() for _ in range(2)]
        request = dict(module=module, arguments=[*map(str, arguments)], env=env, cwd=str(cwd))
        self.returncode = None
        self.pid, self._status = server.fork(request, [file.fileno() for file in self._files])

    def poll(self):
        """The exit code, negative for a signal, or None while the process runs."""
        return self._ended(0)

    def wait(self, timeout=None):
        """The exit code of the process, once it has ended."""
        if self._ended(timeout) is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return self.returncode

    def communicate(self, timeout=None):
        """Standard output and standard error of the process, once it has ended."""
        self.wait(timeout)
        return tuple(self._read(file) for file in self._files)

    def send_signal(self, number):
        """Sends a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        """Sends SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self):
        """Sends SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout):
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            with open(self._status) as pipe:
                self.returncode, cpu = json.load(pipe)
            _ended.append(cpu)
        return self.returncode

    @staticmethod
    def _read(file):
        file.seek(0)
        return file.read().decode(errors="replace")


def serve(channel):
    """Forks children until the channel closes. Returns in the children only, with their request."""
    pipes = {}
    # A handler that reaped would itself be interrupted by the next child that ends.
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, *_ = select.select([channel, woken], [], [])
        if woken in ready:
            woken.recv(4096)
            reap(pipes)
        if channel not in ready:
            continue
        text, files, *_ = socket.recv_fds(channel, 1 << 20, 3)
        if not text:
            for pid in pipes:
                os.kill(pid, signal.SIGKILL)
            sys.exit()
        pid = os.fork()
        if not pid:
            become(files, others=[channel, woken, wake], pipes=pipes.values())
            return json.loads(text)
        pipes[pid] = files[2]
        for file in files[:2]:
            os.close(file)
        channel.send(str(pid).encode())


def reap(pipes):
    """Writes exit code and CPU seconds of the children that have ended to their pipes."""
    while pipes:
        pid, status, used = os.wait4(-1, os.WNOHANG)
        if not pid:
            return
        ended = os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        pipe = pipes.pop(pid)
        os.write(pipe, json.dumps(ended).encode())
        os.close(pipe)


def become(files, others, pipes):
    """Makes this process, just forked, one with this output, and without what is the server's."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, file in enumerate(files[:2], start=1):
        os.dup2(file, number)
    for file in (*files, *pipes):
        os.close(file)
    for channel in others:
        channel.close()


def main():
    """Imports, then forks; in a child, runs its module."""
    for name in WARM:
        importlib.import_module(name)
    gc.freeze()  # children need not look at what was imported, and so need not copy it
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.path[0] = request["cwd"]
    sys.argv = [request["module"], *request["arguments"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
