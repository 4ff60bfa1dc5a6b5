# The program to bake in: `make agent-static` builds it.
export DIB_HELIOGRAPH_AGENT=${DIB_HELIOGRAPH_AGENT:-}
# docker, podman, or none for an engine that another element brings. The Red Hat family has no Docker
# in its own repositories.
case ${DISTRO_NAME:-} in
    centos*|rocky*|almalinux*|rhel*|fedora*) export DIB_HELIOGRAPH_ENGINE=${DIB_HELIOGRAPH_ENGINE:-podman} ;;
    *) export DIB_HELIOGRAPH_ENGINE=${DIB_HELIOGRAPH_ENGINE:-docker} ;;
esac
# Archives of container images, with blanks between their paths, that the engine is to have without a
# registry.
export DIB_HELIOGRAPH_ARCHIVES=${DIB_HELIOGRAPH_ARCHIVES:-}
# What is written to /dev/console goes to the last console that the kernel is told of, and that has to
# be the serial one, which the cloud keeps.
export DIB_BOOTLOADER_DEFAULT_CMDLINE=${DIB_BOOTLOADER_DEFAULT_CMDLINE:-"nofb nomodeset gfxpayload=text console=tty0 console=ttyS0,115200n8"}
