"""Puts into a lab's Keystone what Heat, the tests and the relay need.

    seed.py DIR everything
    seed.py DIR object-store URL|none
    seed.py DIR image-service

Everything may be said twice. Plain HTTP in one process: the command line client takes more than a second
for each of these forty steps.
"""

import json
import shlex
import sys
import urllib.error
import urllib.request

DEFAULT = "default"


class Keystone:
    def __init__(self, settings):
        self.url = settings["keystone_url"] + "/v3"
        self.token = None
        body = {
            "auth": {
                "identity": {
                    "methods": ["password"],
                    "password": {
                        "user": {"name": "admin", "domain": {"id": DEFAULT}, "password": settings["admin_password"]}
                    },
                },
                "scope": {"project": {"name": "admin", "domain": {"id": DEFAULT}}},
            }
        }
        self.token = self.call("POST", "/auth/tokens", body)[1]["X-Subject-Token"]

    def call(self, method, path, body=None):
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("X-Auth-Token", self.token)
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, data, timeout=60) as answer:
                text = answer.read()
                return json.loads(text) if text else {}, answer.headers
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{method} {path}: {error.code} {error.read().decode()}")

    def ensure(self, kind, body, **query):
        """The id of the thing with this name, made if it is not there."""
        query = "&".join(f"{key}={value}" for key, value in {"name": body.get("name"), **query}.items() if value)
        for found in self.call("GET", f"/{kind}s?{query}")[0][f"{kind}s"]:
            return found["id"]
        return self.call("POST", f"/{kind}s", {kind: body})[0][kind]["id"]

    def user(self, name, password, domain=DEFAULT):
        body = {"name": name, "password": password, "domain_id": domain}
        return self.ensure("user", body, domain_id=domain)

    def project(self, name):
        return self.ensure("project", {"name": name, "domain_id": DEFAULT}, domain_id=DEFAULT)

    def grant(self, where, user, *roles):
        for role in roles:
            self.call("PUT", f"/{where}/users/{user}/roles/{role}")

    def endpoint(self, service, interface, url):
        body = {"service_id": service, "interface": interface, "region_id": "RegionOne", "url": url}
        for found in self.call("GET", f"/endpoints?service_id={service}&interface={interface}")[0]["endpoints"]:
            if found["url"] != url:
                self.call("PATCH", f"/endpoints/{found['id']}", {"endpoint": {"url": url}})
            return
        self.call("POST", "/endpoints", {"endpoint": body})


def everything(keystone, settings):
    names = ["admin", "member", "reader", "service", "heat_stack_owner", "heat_stack_user"]
    roles = {name: keystone.ensure("role", {"name": name}) for name in names}
    projects = {name: keystone.project(name) for name in ["demo", "other", "service"]}

    heat = keystone.user("heat", settings["heat_password"])
    keystone.grant(f"projects/{projects['service']}", heat, roles["admin"], roles["service"])
    relay = keystone.user("heliograph", settings["relay_password"])
    keystone.grant(f"projects/{projects['service']}", relay, roles["service"])
    for name in ["demo", "other"]:
        user = keystone.user(name, settings[f"{name}_password"])
        keystone.grant(f"projects/{projects[name]}", user, roles["member"], roles["heat_stack_owner"])

    domain = keystone.ensure("domain", {"name": "heat"})
    domain_admin = keystone.user("heat_domain_admin", settings["heat_domain_password"], domain)
    keystone.grant(f"domains/{domain}", domain_admin, roles["admin"])

    for kind, url in [
        ("orchestration", settings["heat_url"] + "/v1/%(project_id)s"),
        ("cloudformation", settings["cfn_url"] + "/v1"),
    ]:
        service = keystone.ensure("service", {"name": kind, "type": kind}, type=kind)
        for interface in ["public", "internal", "admin"]:
            keystone.endpoint(service, interface, url)

    with open(f"{settings['lab']}/lab.json", "w") as file:
        facts = {
            "keystone_url": settings["keystone_url"],
            "keystone_brief_url": f"http://127.0.0.1:{settings['keystone_brief_port']}",
            "heat_url": settings["heat_url"],
            "heat_spare_url": f"http://127.0.0.1:{settings['heat_spare_port']}",
            "cfn_url": settings["cfn_url"],
            "glance_url": settings["glance_url"],
            "projects": projects,
            "passwords": {name: settings[f"{name}_password"] for name in ["admin", "demo", "other"]},
            "relay": {"username": "heliograph", "password": settings["relay_password"], "project": "service"},
        }
        json.dump(facts, file, indent=2)


def object_store(keystone, url):
    if url == "none":
        for service in keystone.call("GET", "/services?type=object-store")[0]["services"]:
            keystone.call("DELETE", f"/services/{service['id']}")
        return
    service = keystone.ensure("service", {"name": "heliograph", "type": "object-store"}, type="object-store")
    for interface in ["public", "internal", "admin"]:
        keystone.endpoint(service, interface, url.rstrip("/") + "/v1/AUTH_%(project_id)s")


def image_service(keystone, settings):
    glance = keystone.user("glance", settings["glance_password"])
    role = keystone.ensure("role", {"name": "service"})
    keystone.grant(f"projects/{keystone.project('service')}", glance, role)
    service = keystone.ensure("service", {"name": "glance", "type": "image"}, type="image")
    for interface in ["public", "internal", "admin"]:
        keystone.endpoint(service, interface, settings["glance_url"])


def main(lab, command, *arguments):
    with open(f"{lab}/settings") as file:
        settings = dict(word.split("=", 1) for word in shlex.split(file.read()))
    settings["lab"] = lab
    keystone = Keystone(settings)
    if command == "everything":
        everything(keystone, settings)
    elif command == "object-store":
        object_store(keystone, *arguments)
    elif command == "image-service":
        image_service(keystone, settings)
    else:
        raise SystemExit(__doc__)


main(*sys.argv[1:])
