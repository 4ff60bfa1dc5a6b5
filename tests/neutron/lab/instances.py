"""Prints the instances of the lab as JSON: addresses 10.77.0.5 to 10.77.0.34.

usage: instances.py
"""

import json

PROJECT = "0123456789abcdef0123456789abcdef"


def instance(last_byte):
    return {
        "id": "7b1d3c0e-1111-4222-8333-4444555566%02x" % last_byte,
        "project_id": PROJECT,
        "address": "10.77.0.%d" % last_byte,
        "mac": "fa:16:3e:00:01:%02x" % last_byte,
        "name": "lab-%d" % last_byte,
        "metadata": {"role": "web"},
        "user_data": "#docker\nimage: busybox\ncmd: [\"true\"]\n",
    }


print(json.dumps([instance(last_byte) for last_byte in range(5, 35)]))
