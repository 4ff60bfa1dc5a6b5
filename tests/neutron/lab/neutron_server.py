"""Stands in for neutron-server: the only part of the path that is not the real program.

The metadata agents ask over RPC whose port a request comes from, the DHCP agent asks which networks it
has to serve, and Nova asks over HTTP which security groups an instance is in.

usage: neutron_server.py TRANSPORT_URL HTTP_PORT INSTANCES DHCP_NETWORK DHCP_PORT
"""

import http.server
import json
import sys
import threading

from oslo_config import cfg
import oslo_messaging

SUBNET = "5e0a1a40-0000-4000-8000-0000000000ff"
# Where option 121 says that 169.254.169.254 is.
DHCP_ADDRESS = "10.77.0.2"


def port_of(instance, network_id):
    return {
        "id": "00000000-0000-4000-8000-" + instance["mac"].replace(":", ""),
        "network_id": network_id,
        "device_id": instance["id"],
        "device_owner": "compute:nova",
        "project_id": instance["project_id"],
        "tenant_id": instance["project_id"],
        "admin_state_up": True,
        "mac_address": instance["mac"],
        "extra_dhcp_opts": [],
        "fixed_ips": [{"ip_address": instance["address"], "subnet_id": SUBNET}],
    }


class Ports:
    """Whose port is this? Asked by the metadata agents."""

    target = oslo_messaging.Target(namespace=None, version="1.0")

    def __init__(self, instances):
        self.instances = instances

    def get_ports(self, ctxt, filters):
        networks = filters.get("network_id") or [None]
        addresses = filters.get("fixed_ips", {}).get("ip_address", [])
        macs = filters.get("mac_address", [])
        return [port_of(instance, networks[0]) for instance in self.instances
                if instance["address"] in addresses or instance["mac"] in macs]


class MetadataPorts(Ports):
    """Newer agents name a namespace."""

    target = oslo_messaging.Target(namespace="metadata", version="1.0")


class Networks:
    """One isolated network with the instances of the lab, for the DHCP agent."""

    target = oslo_messaging.Target(namespace=None, version="1.9")

    def __init__(self, instances, network_id, port_id):
        self.network_id = network_id
        self.ports = [port_of(instance, network_id) for instance in instances]
        self.dhcp_port_id = port_id
        self.project = instances[0]["project_id"]

    def get_active_networks_info(self, ctxt, host, **kwargs):
        return [self.get_network_info(ctxt, self.network_id, host)]

    def get_network_info(self, ctxt, network_id, host):
        return {
            "id": self.network_id, "name": "isolated", "mtu": 1450, "admin_state_up": True,
            "project_id": self.project, "tenant_id": self.project,
            "subnets": [{
                "id": SUBNET, "network_id": self.network_id, "cidr": "10.77.0.0/24", "ip_version": 4,
                # No gateway: nothing leads out of this network.
                "enable_dhcp": True, "gateway_ip": None, "dns_nameservers": [], "host_routes": [],
                "ipv6_ra_mode": None, "ipv6_address_mode": None, "subnetpool_id": None,
            }],
            "non_local_subnets": [],
            "ports": self.ports,
        }

    def create_dhcp_port(self, ctxt, port, host):
        made = {
            "id": self.dhcp_port_id, "network_id": self.network_id, "project_id": self.project,
            "tenant_id": self.project, "admin_state_up": True, "mac_address": "fa:16:3e:00:00:02",
            "device_id": port["port"]["device_id"], "device_owner": "network:dhcp", "extra_dhcp_opts": [],
            "fixed_ips": [{"ip_address": DHCP_ADDRESS, "subnet_id": SUBNET}],
        }
        self.ports = self.ports + [made]
        return made

    def dhcp_ready_on_ports(self, ctxt, port_ids):
        pass

    def release_dhcp_port(self, ctxt, network_id, device_id, host):
        pass


class Reports:
    """The DHCP agent begins when its first report has been taken."""

    target = oslo_messaging.Target(namespace=None, version="1.2")

    def report_state(self, ctxt, agent_state, time):
        return "alive"


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
    transport_url, http_port, instances_path, network_id, port_id = sys.argv[1:]
    with open(instances_path, encoding="ascii") as file:
        instances = json.load(file)

    web = http.server.ThreadingHTTPServer(("127.0.0.1", int(http_port)), Http)
    threading.Thread(target=web.serve_forever, daemon=True).start()

    configuration = cfg.ConfigOpts()
    configuration([], project="neutron")
    oslo_messaging.set_transport_defaults("neutron")
    transport = oslo_messaging.get_rpc_transport(configuration, url=transport_url)
    plugin = [Ports(instances), MetadataPorts(instances), Networks(instances, network_id, port_id)]
    servers = []
    for topic, endpoints in (("q-plugin", plugin), ("q-reports-plugin", [Reports()])):
        target = oslo_messaging.Target(exchange="neutron", topic=topic, server="stub")
        server = oslo_messaging.get_rpc_server(transport, target, endpoints, executor="threading")
        server.start()
        servers.append(server)
    print("ready", flush=True)
    for server in servers:
        server.wait()


main()
