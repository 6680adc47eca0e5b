"""See to the system libraries that Qt and a virtual display need; standard library only.

On Debian and Ubuntu, missing ones are installed when run as root; without rights, one line names
the command. On other systems, what is missing is named.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

LIBRARIES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-randr.so.0": "libxcb-randr0",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-xinerama.so.0": "libxcb-xinerama0",
    "libxcb-xkb.so.1": "libxcb-xkb1",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
}
"""Shared libraries that the wheels of Qt do not bring, and their Debian packages."""


def missing_packages() -> list[str]:
    """Debian packages of what cannot be found on this Linux."""
    missing = []
    for library, package in LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            missing.append(package)
    if shutil.which("Xvfb") is None:
        missing.append("xvfb")
    fonts = Path("/usr/share/fonts")
    if not any(fonts.rglob("*.[to]tf")):
        missing.append("fonts-dejavu-core")
    return missing


def main() -> int:
    """Install or name what is missing; 0 if nothing is missing any more."""
    if not sys.platform.startswith("linux"):
        return 0
    missing = missing_packages()
    if not missing:
        return 0
    names = " ".join(missing)
    if shutil.which("apt-get") is None:
        print(f"Missing system libraries; install what your system calls: {names}")
        return 1
    if os.geteuid() != 0:
        print(f"Missing system libraries. Run: sudo apt-get install --yes {names}")
        return 1
    print(f"Installing system libraries: {names}", flush=True)
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = [*apt, "install", "--yes", "--no-install-recommends", *missing]
    for command in ([*apt, "update"], install):
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        if done.returncode:
            print(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
