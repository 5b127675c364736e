"""Child processes: pinned to a core, in a network namespace, and always ended."""
import json
import shutil
import signal
import subprocess


class Failed(Exception):
    """What cannot go on, said in a sentence."""


def on_signals():
    """Lets SIGTERM and SIGHUP unwind as Ctrl-C does, so that everything is put back."""

    def leave(number, _frame):
        raise KeyboardInterrupt(f"signal {number}")

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


def deaf_to_signals():
    """From here on, nothing interrupts the putting back."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


class Children:
    """All that was started, by name; `inside` is how a command gets into a side's network."""

    def __init__(self, directory, network):
        self.directory = directory
        self.network = network
        self.running = {}
        # A child dies with this program even if that is killed.
        self.last_will = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []

    def command(self, side, cpu, command):
        """The command on a side, pinned to a core."""
        inside = self.network.inside(side)
        return [*inside, *self.last_will, "taskset", "-c", str(cpu), *map(str, command)]

    def start(self, name, side, cpu, command, talks=False):
        """Starts what runs until it is ended; what `talks` is read from its `stdout`."""
        with open(self.directory / f"{name}.out", "ab") as out:
            self.running[name] = subprocess.Popen(
                self.command(side, cpu, command),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE if talks else out,
                stderr=out, start_new_session=True,
            )
        return self.running[name]

    def pid(self, name):
        """The process of a child; an error if it has ended."""
        process = self.running[name]
        if process.poll() is not None:
            said = (self.directory / f"{name}.out").read_text(errors="replace")[-2000:]
            raise Failed(f"{name} has ended with {process.returncode}:\n{said}")
        return process.pid

    def ask(self, side, cpu, command, patience):
        """Runs a command to its end; the JSON of its last line."""
        done = subprocess.Popen(
            self.command(side, cpu, command), start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        self.running["asked"] = done
        try:
            out, complaint = done.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            out, complaint = "", f"no end after {patience} s"
        finally:
            self.end("asked")
        if done.returncode != 0 or not out.strip():
            raise Failed(f"{' '.join(map(str, command))}: {complaint or out}")
        return json.loads(out.strip().splitlines()[-1])

    def end(self, name):
        """Ends one child and waits for it."""
        process = self.running.pop(name, None)
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()

    def end_all(self):
        """Ends everything, the last first."""
        for name in reversed(list(self.running)):
            self.end(name)
