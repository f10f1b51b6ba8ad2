"""The machine that is measured on: what it is, what it gives at this moment, and who else uses it meanwhile."""

import contextlib
import json
import os
import resource
import shlex
import subprocess
import time

from places import CRIA, PROGRAM_SOURCES, ROOT

REST_SECONDS = 0.5  # before a sample: a rival's threads may spin for a while after their work
LONGEST_REST = 6
HOLD_SECONDS = 138  # of --exclusive, whose commands may have a limit of their own
IDLE = 0.05  # CPUs in use below which the machine counts as at rest
MOST_OTHERS = 0.12  # CPUs that others may use during a sample
TICK = 1 / os.sysconf("SC_CLK_TCK")


class Hold:
    """Runs COMMAND around a block, such as `flock FILE`: it starts a child that says so and waits for its input to end.
    None: nothing. `lost` is true once the command has ended by itself, and with it whatever it held."""

    def __init__(self, command):
        self.child = None
        if command:
            self.child = subprocess.Popen([*shlex.split(command), "sh", "-c", "echo held; cat >/dev/null"],
                                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            if self.child.stdout.readline().strip() != "held":
                raise RuntimeError(f"{command}: it ended before it began")
        self.start = time.monotonic()

    @property
    def seconds(self):
        return time.monotonic() - self.start

    @property
    def lost(self):
        return self.child is not None and self.child.poll() is not None

    def release(self):
        if self.child:
            self.child.stdin.close()
            self.child.wait()


class Turns:
    """One hold of the machine after the other, each used for as much as fits into HOLD_SECONDS."""

    def __init__(self, command):
        self.command, self.held = command, None

    def need(self, seconds):
        """From here on the machine is ours for so long."""
        if self.held is None or self.held.lost or self.command and self.held.seconds + seconds > HOLD_SECONDS:
            self.release()
            self.held = Hold(self.command)

    def check(self):
        if self.held.lost:
            raise RuntimeError("the machine was not ours to the end")

    def release(self):
        if self.held:
            self.held.release()
        self.held = None


@contextlib.contextmanager
def hold(command):
    held = Hold(command)
    try:
        yield held
    finally:
        held.release()


def output_of(command, environment=None):
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    if result.returncode != 0:
        raise RuntimeError(result.stderr.strip().splitlines()[-1] if result.stderr.strip() else f"{command[0]} failed")
    return result.stdout


def describe():
    """What every row says of where it was measured."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        lines = dict(line.split(":", 1) for line in file.read().split("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    flags = fields.get("flags", "").split()
    known = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "avx512_bf16": "BF16", "amx_int8": "AMX"}
    return {"cpu": fields.get("model name", "unknown"), "family": fields.get("cpu family"), "model_number": fields.get("model"),
            "features": [name for flag, name in known.items() if flag in flags]}


def same(a, b):
    """Whether two rows come from machines of one kind."""
    return all(a.get(name) == b.get(name) for name in ("cpu", "family", "model_number", "features"))


def kinds(rows):
    """The rows of each kind of machine, that of the newest row first: their figures do not belong in one table."""
    found = []
    for row in reversed(rows):
        group = next((group for group in found if same(group[0], row)), None)
        if group is None:
            found.append(group := [])
        group.append(row)
    return [group[::-1] for group in found]


def name(row):
    return f"{row['cpu']}, family {row['family']}, model {row['model_number']} ({', '.join(row['features'])})"


def slug(row):
    """What tells a machine's files from another's."""
    return f"{row['family']}-{row['model_number']}-{row['features'][-1] if row['features'] else 'scalar'}".lower()


def commit():
    """The last change of what is compiled into the program: documents and tests do not make another program."""
    try:
        return output_of(["git", "log", "-1", "--format=%h", "--", *PROGRAM_SOURCES]).strip()
    except (RuntimeError, OSError):
        return "unknown"


def calibrate(threads):
    row = json.loads(output_of([str(CRIA), "bench", "--calibrate", "--threads", str(threads), "--json"]))["calibration"][0]
    row.pop("threads")
    return row


def used_by_all():
    """CPU seconds since the start, of everything but idling; time that a hypervisor gave to others counts as used."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) * TICK


def used_by(process):
    """CPU seconds of one living process, all its threads."""
    with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


def used_by_us():
    """This process and the children that it has waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


class Watch:
    """CPUs that others used while the block ran: 0.5 is half of one. `processes`: living ones that count as ours."""

    def __init__(self, *processes):
        self.processes, self.others = processes, 0.0

    def ours(self):
        return used_by_us() + sum(used_by(process) for process in self.processes)

    def __enter__(self):
        self.start, self.all, self.own = time.monotonic(), used_by_all(), self.ours()
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            used = used_by_all() - self.all - (self.ours() - self.own)
            self.others = round(max(0.0, used) / (time.monotonic() - self.start), 3)


def is_clean(row):
    """Whether a sample had the machine for itself."""
    return row.get("others", 0) <= MOST_OTHERS


def rest():
    """Waits until nobody uses the machine, for half a second at least and a few seconds at most."""
    time.sleep(REST_SECONDS - 0.2)
    end = time.monotonic() + LONGEST_REST
    while time.monotonic() < end:
        with Watch() as watch:
            time.sleep(0.2)
        if watch.others <= IDLE:
            return
