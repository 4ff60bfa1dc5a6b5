"""The HTTP half of ovn-metadata-agent, with a stub of the southbound database.

The handler, its server and its mode (0 workers: one request after the other) are Neutron's own. What
is left out is the half that makes namespaces and haproxies from the database; the lab does that.

usage: ovn_agent.py CONFIG INSTANCES
"""

import json
import sys
import types

from neutron.agent.ovn.metadata import server_socket
from neutron.common import config
from neutron.common.ovn import constants
from neutron.conf.agent.metadata import config as meta
from neutron.conf.agent.ovn.metadata import config as ovn_meta
from oslo_config import cfg


class Southbound:
    def __init__(self, instances):
        self.by_address = {instance["address"]: instance for instance in instances}

    def get_network_port_bindings_by_ip(self, network_id, remote_address, mac=None):
        instance = self.by_address.get(remote_address)
        if instance is None:
            return []
        return [types.SimpleNamespace(uuid="binding", external_ids={
            constants.OVN_DEVID_EXT_ID_KEY: instance["id"],
            constants.OVN_PROJID_EXT_ID_KEY: instance["project_id"],
        })]


def main():
    config_path, instances_path = sys.argv[1:]
    with open(instances_path, encoding="ascii") as file:
        instances = json.load(file)
    config.register_common_config_options()
    ovn_meta.register_meta_conf_opts(meta.SHARED_OPTS)
    ovn_meta.register_meta_conf_opts(meta.UNIX_DOMAIN_METADATA_PROXY_OPTS)
    ovn_meta.register_meta_conf_opts(meta.METADATA_PROXY_HANDLER_OPTS)
    config.init(["--config-file", config_path])
    config.setup_logging()
    proxy = server_socket.UnixDomainMetadataProxy(cfg.CONF, "chassis", Southbound(instances))
    proxy.run()
    proxy.wait()


main()
