"""Makes Nova's databases: the schema from Nova's own models, and the instances of the lab.

usage: OS_NOVA_CONFIG_DIR=DIR nova_database.py NOVA_CONF INSTANCES
"""

import json
import sys

from nova import config, context, objects
from nova.db.api import api as api_database
from nova.db.api import models as api_models
from nova.db.main import api as main_database
from nova.db.main import models as main_models
from nova.objects import fields
from oslo_serialization import base64


def flavor():
    return objects.Flavor(
        id=1, name="small", memory_mb=512, vcpus=1, root_gb=1, ephemeral_gb=0, flavorid="1", swap=0,
        rxtx_factor=1.0, vcpu_weight=0, disabled=False, is_public=True, extra_specs={}, projects=[],
        description=None)


def network_info(instance):
    return json.dumps([{
        "id": "port-" + instance["id"], "address": instance["mac"], "type": "bridge",
        "devname": "tap0", "ovs_interfaceid": None, "details": {}, "active": True, "vnic_type": "normal",
        "profile": {}, "qbh_params": None, "qbg_params": None, "preserve_on_delete": False, "meta": {},
        "network": {"id": "5e0a1a40-0000-4000-8000-000000000001", "bridge": "br0", "label": "isolated",
                    "meta": {"mtu": 1450, "injected": False},
                    "subnets": [{"cidr": "10.77.0.0/24", "version": 4, "routes": [], "dns": [],
                                 "gateway": {"address": None, "type": "gateway", "version": None, "meta": {}},
                                 "meta": {"dhcp_server": "10.77.0.2"},
                                 "ips": [{"address": instance["address"], "type": "fixed", "version": 4,
                                          "meta": {}, "floating_ips": []}]}]},
    }])


def add(ctxt, instance):
    row = objects.Instance(
        ctxt, uuid=instance["id"], user_id="user", project_id=instance["project_id"],
        image_ref="0e3c7a51-0000-4000-8000-000000000002", kernel_id="", ramdisk_id="", launch_index=0,
        hostname=instance["name"], display_name=instance["name"], display_description="",
        reservation_id="r-lab00000", host="compute", node="compute", vm_state="active",
        availability_zone="nova", root_device_name="/dev/vda", key_name=None, key_data=None,
        user_data=base64.encode_as_text(instance["user_data"]), metadata=instance["metadata"],
        system_metadata={}, flavor=flavor(), old_flavor=None, new_flavor=None, memory_mb=512, vcpus=1,
        root_gb=1, ephemeral_gb=0, locked=False, security_groups=objects.SecurityGroupList(objects=[]))
    row.create()
    cache = objects.InstanceInfoCache.get_by_instance_uuid(ctxt, instance["id"])
    cache.network_info = fields.NetworkModel.coerce(None, None, network_info(instance))
    cache.save()


def main():
    conf_path, instances_path = sys.argv[1:]
    with open(instances_path, encoding="ascii") as file:
        instances = json.load(file)
    config.parse_args(["nova"], default_config_files=[conf_path])
    objects.register_all()
    ctxt = context.get_admin_context()
    main_models.BASE.metadata.create_all(main_database.get_engine())
    api_models.BASE.metadata.create_all(api_database.get_engine())
    for instance in instances:
        add(ctxt, instance)


main()
