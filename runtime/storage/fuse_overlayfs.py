"""overlay2's layout for kernels and file systems that cannot stack or map ids: a program in user space (fuse-overlayfs(1)) does both.

The runtime starts one for each container; it ends with the last mount of its file system. While it lives it is as good as its
process: when it is killed, every access to the root fails with ENOTCONN until the container is started again.
"""

from __future__ import annotations

from runtime.storage.overlay2 import Overlay2

PROGRAM = "fuse-overlayfs"


class FuseOverlayfs(Overlay2):
    """See `Driver`. Ids are mapped by the program (`uidmapping=`), not by the mount."""

    name = "fuse-overlayfs"
