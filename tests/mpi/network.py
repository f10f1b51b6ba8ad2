"""Two hosts on one machine: network namespaces with a link between them, real sockets, a host name each.

The calling process becomes the first host; Open MPI starts ranks on the second through `plm_rsh_agent`, as it would
with ssh. Needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN). Only Python's own library."""
import collections
import contextlib
import ctypes
import fcntl
import os
import pathlib
import select
import shutil
import socket
import struct
import subprocess
import threading
import time

CLONE_NEWNET, CLONE_NEWUTS = 0x40000000, 0x04000000
ADDRESS = ("10.77.0.1", "10.77.0.2")


class NotPermitted(Exception):
    pass


def ip(*words):
    subprocess.run(["ip", *map(str, words)], check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


class Wire(threading.Thread):
    """Carries packets between two TUN devices, each after `delay` seconds, or loses them: what netem does, for kernels
    without it, and a cut that neither side's interface notices."""

    def __init__(self, devices, delay):
        super().__init__(daemon=True)
        self.devices, self.delay, self.cut, self.done = devices, delay, False, False

    def run(self):
        under_way = collections.deque()
        other = {self.devices[0]: self.devices[1], self.devices[1]: self.devices[0]}
        while not self.done:
            wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else 0.1
            for device in select.select(self.devices, [], [], min(wait, 0.1))[0]:
                packet = os.read(device, 65536)
                if not self.cut:
                    under_way.append((time.monotonic() + self.delay, other[device], packet))
            while under_way and under_way[0][0] <= time.monotonic():
                _, device, packet = under_way.popleft()
                if not self.cut:
                    with contextlib.suppress(OSError):  # the other side is not up yet: lost, as on a real wire
                        os.write(device, packet)


class TwoHosts:
    """delay: seconds that a packet takes, None: no wire but a veth pair, whose kernel does the carrying."""

    def __init__(self, folder, delay=None):
        self.names = [f"cria-{os.getpid()}-{side}" for side in "ab"]
        self.devices = [f"cria{os.getpid() % 100000}{side}" for side in "ab"]
        self.folder, self.delay, self.wire, self.home = pathlib.Path(folder), delay, None, None
        if os.geteuid() != 0:
            raise NotPermitted("network namespaces need root")
        if not shutil.which("ip"):
            raise NotPermitted("network namespaces need the package iproute2")
        try:
            for name in self.names:
                ip("netns", "add", name)
            self.connect()
        except (OSError, subprocess.CalledProcessError) as error:
            self.remove()
            raise NotPermitted(f"network namespaces: {getattr(error, 'stderr', b'') or error}") from error
        self.write_files()

    def connect(self):
        if self.delay is None:
            ip("link", "add", self.devices[0], "netns", self.names[0], "type", "veth", "peer", "name", self.devices[1],
               "netns", self.names[1])
        else:
            files = []
            for name, device in zip(self.names, self.devices):
                file = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
                fcntl.ioctl(file, 0x400454CA, struct.pack("16sH22x", device.encode(), 0x0001 | 0x1000))
                ip("link", "set", device, "netns", name)
                files.append(file)
            self.wire = Wire(files, self.delay)
            self.wire.start()
        for i, (name, device) in enumerate(zip(self.names, self.devices)):
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "addr", "add", *((f"{ADDRESS[i]}/24",) if self.delay is None
                                            else (ADDRESS[i], "peer", f"{ADDRESS[1 - i]}/32")), "dev", device)
            ip("-n", name, "link", "set", device, "up")

    def write_files(self):
        agent = self.folder / "agent"
        agent.write_text("#!/bin/sh\n# agent HOST COMMAND...: what ssh would do\nshift\n"
                         f"exec nsenter --net=/run/netns/{self.names[1]} unshare --uts "
                         "sh -c 'hostname host-b; eval \"exec $*\"' sh \"$@\"\n")
        agent.chmod(0o755)
        self.environment = {"OMPI_MCA_plm_rsh_agent": str(agent)}
        for part in ("btl", "oob"):
            self.environment[f"OMPI_MCA_{part}_tcp_if_include"] = f"{ADDRESS[0]}/24"

    def hostfile(self, *slots):
        path = self.folder / f"hosts-{'-'.join(map(str, slots))}"
        path.write_text("".join(f"{address} slots={count}\n" for address, count in zip(ADDRESS, slots)))
        return path

    def cross_bytes(self):
        """Bytes that the first host has sent to the second, and received."""
        for line in pathlib.Path("/proc/thread-self/net/dev").read_text().splitlines():
            name, _, numbers = line.strip().partition(":")
            if name == self.devices[0]:
                return int(numbers.split()[8]), int(numbers.split()[0])
        raise KeyError(self.devices[0])

    def cut(self):
        """From now on no packet arrives. A veth pair loses its carrier, a wire only its packets."""
        if self.wire:
            self.wire.cut = True
        else:
            ip("-n", self.names[1], "link", "set", self.devices[1], "down")

    def __enter__(self):
        libc = ctypes.CDLL(None, use_errno=True)
        self.home = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("net", "uts")]
        with open(f"/run/netns/{self.names[0]}") as namespace:
            if libc.setns(namespace.fileno(), CLONE_NEWNET) or libc.unshare(CLONE_NEWUTS):
                raise NotPermitted("setns")
        socket.sethostname("host-a")
        os.environ.update(self.environment)
        return self

    def __exit__(self, *_):
        for name in self.environment:
            del os.environ[name]
        libc = ctypes.CDLL(None, use_errno=True)
        for namespace in self.home:
            libc.setns(namespace, 0)
            os.close(namespace)
        self.remove()

    def remove(self):
        if self.wire:
            self.wire.done = True
            self.wire.join()
            for device in self.wire.devices:
                os.close(device)
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)
