"""What a command sees of folders that all gateways of the machine share: the tests of others run beside.

    gateway.namespace.run(*among(left, right), *wghsm("status"))            of all gateways only these two
    gateway.namespace.run(*with_file(file), *wghsm("up", file.stem))        /etc/wghsm with this file alone

Both are the beginning of a command line for a Namespace: `ip netns exec` gives each command its own mounts, so what is
mounted here is not seen by anybody else.
"""

from pathlib import Path

from tests.network.support.gateway import Gateway
from wghsm.ipc.admin import admin_socket_path

__all__ = ["among", "with_file"]

# The first argument is an empty folder for what has to be mounted beside.
_AMONG = """
all=$1 run=$2
shift 2
mount --bind "$run" "$all"
mount -t tmpfs tmpfs "$run"
while [ "$1" != -- ]; do
    mkdir "$run/$1"
    mount --bind "$all/$1" "$run/$1"
    shift
done
shift
exec "$@"
"""

_WITH_FILE = """
new=$1 file=$2
shift 2
mount -t tmpfs tmpfs "$new"
mkdir "$new/upper" "$new/work"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$new/upper,workdir=$new/work" /etc
mkdir -p /etc/wghsm
mount -t tmpfs -o mode=0755 tmpfs /etc/wghsm
cp "$file" /etc/wghsm/
exec "$@"
"""


def among(*gateways: Gateway) -> list[str]:
    """Let a command find these gateways only, which have begun to run."""
    run = admin_socket_path("x").parent.parent
    return ["sh", "-ec", _AMONG, "sh", _beside(gateways[0].file), str(run), *(each.name for each in gateways), "--"]


def with_file(file: Path) -> list[str]:
    """Let a command find a copy of this file in /etc/wghsm, and nothing else there."""
    return ["sh", "-ec", _WITH_FILE, "sh", _beside(file), str(file)]


def _beside(file: Path) -> str:
    folder = file.with_name("view")
    folder.mkdir(exist_ok=True)
    return str(folder)
