# Keeps cloud-init quiet about user data that is heliograph-agent's.
#
# Install as /var/lib/cloud/handlers/heliograph_docker.py. cloud-init loads what is there before it
# looks at user data. The agent reads the same user data itself, so nothing is handed over here: parts
# of type text/x-docker, and user data that begins with "#docker", are marked as known. Without this
# file cloud-init warns about them and does everything else as usual.

"""cloud-init part handler for heliograph-agent's documents."""

import logging

LOG = logging.getLogger(__name__)

handler_version = 2

DOCUMENT = "text/x-docker"
# What cloud-init calls user data that is neither MIME nor begins with a line that it knows.
BARE = "text/x-not-multipart"


def list_types():
    """Name the types of parts that are given to handle_part."""
    return [DOCUMENT, BARE]


def handle_part(_data, content_type, _filename, payload, _frequency):
    """Do nothing with a document, and say of anything else what cloud-init would have said."""
    if content_type != BARE or not payload or is_document(payload):
        return
    LOG.warning("Unhandled non-multipart (%s) userdata", content_type)


def is_document(payload):
    """Tell whether the first line that is not blank is the header of a document."""
    if isinstance(payload, bytes):
        payload = payload.decode("utf-8", "replace")
    lines = (line.strip() for line in payload.lstrip("\ufeff").splitlines())
    words = next((line for line in lines if line), "").lower().split()
    return words[:1] in (["#docker"], ["#docker-cmd"])
