#!/usr/bin/python3
"""Lets signals arrive between Heat's reading and Heat's deleting, and counts what Heat would have seen.

    OS_TOKEN=... race.py ACCOUNT-URL ROUNDS
    race.py model ROUNDS

The requests are those of heat-engine for a wait condition with TEMP_URL_SIGNAL, through the same client
library and in the same order: list the container, read each object whose name contains the handle's, then
delete each that was read, the bare name last. In every round one signal arrives before the list, one
after the list, and one after the reads.

`model` is the control: instead of a server, a container with Swift's versions (versioned_writes with
X-Versions-Location on itself, as Heat sets it), in which a newer signal takes the name of the older, and a
DELETE of the name removes the newer and restores the older. If no signal were lost there, this would
not be looking.
"""

import hashlib
import hmac
import json
import os
import sys
import time
import urllib.request
import uuid
from urllib.parse import urlparse

import swiftclient


class VersionsHandle:
    """Swift's versioned_writes in stack mode, of one object."""

    def __init__(self):
        self.name, self.current, self.archive, self.number = "h", None, {}, 0

    def signal(self, identifier):
        if self.current is not None:
            self.number += 1
            self.archive[f"{len(self.name):03x}{self.name}/{self.number:020}"] = self.current
        self.current = json.dumps({"id": identifier}).encode()

    def list_names(self):
        return sorted([*self.archive, *([self.name] if self.current is not None else [])])

    def read(self, names):
        objects = {**self.archive, self.name: self.current}
        return [(name, objects[name]) for name in names if objects.get(name) is not None]

    def delete(self, names):
        for name in sorted(names, key=lambda name: name == self.name):
            if name != self.name:
                self.archive.pop(name, None)
                continue
            latest = max(self.archive, default=None)
            self.current = self.archive.pop(latest, None)

    def end(self):
        pass


class Handle:
    def __init__(self, url, token):
        self.client = swiftclient.client.Connection(preauthurl=url, preauthtoken=token, retries=0)
        self.container, self.name = str(uuid.uuid4()), "race-handle-" + uuid.uuid4().hex[:12]
        self.client.put_container(self.container)
        self.client.put_container(self.container, headers={"x-versions-location": self.container})
        self.client.put_object(self.container, self.name, "in progress")
        key = self.client.head_account()["x-account-meta-temp-url-key"]
        path = f"{urlparse(url).path}/{self.container}/{self.name}"
        expires = 2147483586
        signature = hmac.new(key.encode(), f"PUT\n{expires}\n{path}".encode(), hashlib.sha256).hexdigest()
        host = urlparse(url)
        self.url = f"{host.scheme}://{host.netloc}{path}?temp_url_sig={signature}&temp_url_expires={expires}"

    def signal(self, identifier):
        body = json.dumps({"id": identifier, "data": identifier}).encode()
        request = urllib.request.Request(self.url, body, method="PUT")
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 201, answer.status

    def list_names(self):
        try:
            return [entry["name"] for entry in self.client.get_container(self.container)[1]]
        except swiftclient.exceptions.ClientException as error:
            if error.http_status != 404:
                raise
            return []

    def read(self, names):
        objects = []
        for name in names:
            if self.name in name:
                objects.append((name, self.client.get_object(self.container, name)[1]))
        return objects

    def delete(self, names):
        """A missing one fails the wait condition, so it fails this."""
        for name in sorted(names, key=lambda name: name == self.name):
            self.client.delete_object(self.container, name)

    def end(self):
        """As a stack's deletion ends."""
        n_left = len(self.list_names())
        assert self.client.head_container(self.container)["x-container-object-count"] == str(n_left)
        self.client.delete_container(self.container)


def main(url, rounds):
    handle = VersionsHandle() if url == "model" else Handle(url, os.environ["OS_TOKEN"])
    sent, seen = [], []

    def send():
        sent.append(f"s{len(sent)}")
        handle.signal(sent[-1])

    def collect(between):
        names = handle.list_names()
        between()
        objects = handle.read(names)
        between()
        seen.extend(json.loads(body)["id"] for _, body in objects)
        handle.delete([name for name, _ in objects])

    began = time.monotonic()
    for _ in range(int(rounds)):
        send()
        collect(send)
    collect(lambda: None)
    lost = set(sent) - set(seen)
    twice = len(seen) - len(set(seen))
    left = handle.list_names()
    handle.end()
    print(f"{rounds} rounds, {len(lost)} lost, {twice} twice; {len(sent)} signals, {time.monotonic() - began:.1f} s")
    sys.exit(bool(lost or twice or left))


main(*sys.argv[1:])
