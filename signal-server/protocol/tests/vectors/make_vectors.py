#!/usr/bin/env python3
"""Makes tempurl.json with the real python-swiftclient.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install python-swiftclient
    /tmp/venv/bin/python make_vectors.py > tempurl.json

The cases are the methods, digests and path shapes that Heat and people use; the signatures are
whatever python-swiftclient's generate_temp_url() makes of them.
"""

import importlib.metadata
import json
import sys
from urllib.parse import urlsplit

from swiftclient import utils

KEYS = ["1f040a72c73e4bd9e809e2dd9ca99779", "k", "clé-ключ", "x" * 200]
PATHS = [
    "/v1/AUTH_522957cc30834bcb90fc90fb433e925a/c46a946c-c97c-444c-8422-ad3ce9091473/t1-handle-bwdngbnrwyjz",
    "/v1/AUTH_p/container/object/with/slashes",
    "/v1/AUTH_p/container/grüße und leer",
]
EXPIRES = 2147483586


def main():
    vectors = []
    for key in KEYS:
        for path in PATHS:
            for method in ["GET", "PUT", "HEAD"]:
                for digest in ["sha1", "sha256", "sha512"]:
                    for prefix in [False, True]:
                        url = utils.generate_temp_url(
                            path, EXPIRES, key, method, absolute=True, prefix=prefix, digest=digest
                        )
                        vectors.append(
                            {
                                "key": key,
                                "path": path,
                                "method": method,
                                "digest": digest,
                                "prefix": prefix,
                                "query": urlsplit(url).query,
                            }
                        )
    iso = utils.generate_temp_url(
        PATHS[0], EXPIRES, KEYS[0], "PUT", absolute=True, iso8601=True, digest="sha256"
    )
    vectors.append(
        {
            "key": KEYS[0],
            "path": PATHS[0],
            "method": "PUT",
            "digest": "sha256",
            "prefix": False,
            "query": urlsplit(iso).query,
        }
    )
    document = {
        "made_by": "python-swiftclient " + importlib.metadata.version("python-swiftclient"),
        "expires": EXPIRES,
        "vectors": vectors,
    }
    json.dump(document, sys.stdout, indent=1, ensure_ascii=False)
    print()


main()
