"""Writes the haproxy configuration that Neutron itself writes, and prints its path.

usage: haproxy_config.py ovs|ovn NETWORK_ID UNIX_SOCKET STATE_DIR RATE_LIMITED(0|1)
"""

import sys

from neutron.conf.agent.metadata import config
from oslo_config import cfg
from oslo_log import log

kind, network_id, unix_socket, state_dir, rate_limited = sys.argv[1:]

if kind == "ovn":
    from neutron.agent.ovn.metadata import driver
else:
    from neutron.agent.metadata import driver

log.register_options(cfg.CONF)
arguments = dict(
    network_id=network_id, router_id=None, unix_socket_path=unix_socket,
    host="169.254.169.254", port=80, user="root", group="root", state_path=state_dir,
    pid_file=state_dir + "/haproxy.pid")
cfg.CONF.register_opts(config.METADATA_RATE_LIMITING_OPTS, group=config.RATE_LIMITING_GROUP)
cfg.CONF.set_override("rate_limit_enabled", rate_limited == "1", config.RATE_LIMITING_GROUP)
arguments["rate_limiting_config"] = cfg.CONF.metadata_rate_limiting

configurator = driver.HaproxyConfigurator(**arguments)
configurator.create_config_file()
print(configurator.cfg_path)
