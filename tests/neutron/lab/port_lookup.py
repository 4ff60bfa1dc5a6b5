"""Answers the one question that a metadata agent asks neutron-server: whose port is this?

The agents ask over RPC, Nova asks over HTTP which security groups an instance is in. This stands in
for neutron-server in both, and is the only part of the path that is not the real program.

usage: port_lookup.py TRANSPORT_URL HTTP_PORT INSTANCES
"""

import http.server
import json
import sys
import threading

from oslo_config import cfg
import oslo_messaging


def port_of(instance, network_id):
    return {
        "id": "port-" + instance["id"],
        "network_id": network_id,
        "device_id": instance["id"],
        "device_owner": "compute:nova",
        "project_id": instance["project_id"],
        "tenant_id": instance["project_id"],
        "fixed_ips": [{"ip_address": instance["address"], "subnet_id": "subnet"}],
    }


class Ports:
    target = oslo_messaging.Target(namespace=None, version="1.0")

    def __init__(self, instances):
        self.by_address = {instance["address"]: instance for instance in instances}

    def get_ports(self, ctxt, filters):
        networks = filters.get("network_id") or [None]
        addresses = filters.get("fixed_ips", {}).get("ip_address", [])
        found = [self.by_address[address] for address in addresses if address in self.by_address]
        return [port_of(instance, networks[0]) for instance in found]


class MetadataPorts(Ports):
    """Newer agents name a namespace."""

    target = oslo_messaging.Target(namespace="metadata", version="1.0")


class Http(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = json.dumps({"ports": [], "security_groups": []}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def main():
    transport_url, http_port, instances_path = sys.argv[1:]
    with open(instances_path, encoding="ascii") as file:
        instances = json.load(file)

    web = http.server.ThreadingHTTPServer(("127.0.0.1", int(http_port)), Http)
    threading.Thread(target=web.serve_forever, daemon=True).start()

    configuration = cfg.ConfigOpts()
    configuration([], project="neutron")
    oslo_messaging.set_transport_defaults("neutron")
    transport = oslo_messaging.get_rpc_transport(configuration, url=transport_url)
    target = oslo_messaging.Target(exchange="neutron", topic="q-plugin", server="stub")
    server = oslo_messaging.get_rpc_server(
        transport, target, [Ports(instances), MetadataPorts(instances)], executor="threading")
    server.start()
    print("ready", flush=True)
    server.wait()


main()
