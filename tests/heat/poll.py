#!/usr/bin/python3
"""Polls many wait conditions once a second, as heat-engine does, and tells what that costs the server.

    OS_TOKEN=... poll.py ACCOUNT-URL N-HANDLES SECONDS swiftclient|socket PID...

Each handle is a container of its own with a placeholder and no signal in it, as that of a stack that waits.
`swiftclient` polls with the library that Heat uses, one thread and one connection for each of 16 pollers,
as fast as one core lets it; `socket` writes the same request to bare sockets, so that the polls really are
one a second each. The processor time is that of the server's processes PID.
"""

import os
import socket
import sys
import threading
import time
import uuid
from urllib.parse import urlparse

import swiftclient

N_POLLERS = 16


def processor_seconds(pids):
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class SwiftClient:
    def __init__(self, url, token):
        self.connection = swiftclient.client.Connection(preauthurl=url, preauthtoken=token, retries=0)

    def poll(self, container):
        self.connection.get_container(container)


class Socket:
    def __init__(self, url, token):
        parts = urlparse(url)
        self.host, self.path, self.token = parts.netloc, parts.path, token
        self.stream = socket.create_connection((parts.hostname, parts.port))
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def poll(self, container):
        self.stream.sendall(
            f"GET {self.path}/{container}?format=json HTTP/1.1\r\nHost: {self.host}\r\n"
            f"x-auth-token: {self.token}\r\nuser-agent: python-swiftclient-4.1.0\r\n"
            "accept-encoding: gzip\r\n\r\n".encode()
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.stream.recv(65536)
        head, body = answer.split(b"\r\n\r\n", 1)
        assert head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 204")), head
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(body) < length:
            body += self.stream.recv(65536)


def main(url, n_handles, seconds, kind, *pids):
    token, seconds = os.environ["OS_TOKEN"], float(seconds)
    setup = swiftclient.client.Connection(preauthurl=url, preauthtoken=token, retries=0)
    containers = [str(uuid.uuid4()) for _ in range(int(n_handles))]
    for container in containers:
        setup.put_container(container)
        setup.put_container(container, headers={"x-versions-location": container})
        setup.put_object(container, "stack-handle-" + container[:12], "in progress")

    times = [[] for _ in range(N_POLLERS)]
    client = {"swiftclient": SwiftClient, "socket": Socket}[kind]
    clients = [client(url, token) for _ in range(N_POLLERS)]
    begin = time.monotonic() + 0.5

    def poller(number):
        mine = containers[number::N_POLLERS]
        turn = 0
        while True:
            # Polls of one second are spread over it, as those of stacks that began at any time.
            for index, container in enumerate(mine):
                due = begin + turn + index / len(mine)
                now = time.monotonic()
                if now - begin > seconds:
                    return
                if due > now:
                    time.sleep(due - now)
                asked = time.monotonic()
                clients[number].poll(container)
                times[number].append(time.monotonic() - asked)
            turn += 1

    threads = [threading.Thread(target=poller, args=[number]) for number in range(N_POLLERS)]
    while time.monotonic() < begin:
        time.sleep(0.01)
    before = processor_seconds(pids)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - begin
    used = processor_seconds(pids) - before
    sorted_times = sorted(t for each in times for t in each)
    n_polls = len(sorted_times)
    quantile = lambda q: sorted_times[min(n_polls - 1, int(q * n_polls))] * 1000
    print(
        f"{kind}: {n_handles} wait conditions, {n_polls / took:.0f} polls/s, p50 {quantile(0.5):.2f} ms, "
        f"p99 {quantile(0.99):.2f} ms, {used / took * 100:.1f} % of a core, {used / n_polls * 1e6:.0f} us of processor each"
    )
    for container in containers:
        # Swift counts the placeholder, which the relay does not show.
        for entry in setup.get_container(container)[1]:
            setup.delete_object(container, entry["name"])
        setup.delete_container(container)


main(*sys.argv[1:])
