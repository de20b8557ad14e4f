"""Options of systemd that sandbox the app's code, in builds and in all units of the app."""

from __future__ import annotations

SHARED_MEMORY = "/dev/shm:rw,nosuid,nodev,noexec,mode=1777"
# A refused system call fails with an error that the code can handle.
BUILDS = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "PrivateDevices": "yes",
    "PrivateIPC": "yes",
    "ProtectProc": "invisible",
    "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
    "RestrictNamespaces": "yes",
    "RestrictSUIDSGID": "yes",
    "SystemCallArchitectures": "native",
    "SystemCallFilter": "@system-service",
    "SystemCallErrorNumber": "EPERM",
}
UNITS = BUILDS | {
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateMounts": "yes",
    "PrivateUsers": "yes",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "RestrictRealtime": "yes",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "RemoveIPC": "yes",
    "KeyringMode": "private",
    # Gunicorn needs @chown for its socket; @privileged includes it. The last line denies calls that
    # had vulnerabilities and that no WSGI server needs.
    "SystemCallFilter": [
        "@system-service",
        "~@privileged @resources",
        "@chown",
        "~@keyring io_uring_enter io_uring_register io_uring_setup userfaultfd",
    ],
    "UMask": "0027",
    "LimitCORE": "0",  # a core dump would contain secrets
}
# Directories of every Debian system. Units see them empty, except for directories of the app.
EMPTY = [
    *("/media", "/mnt", "/srv", "/var/backups", "/var/lib", "/var/log", "/var/mail", "/var/spool"),
]
# Configuration of the host and of other apps, and sockets that take commands.
INACCESSIBLE = [
    *("/boot", "/etc/ansible", "/etc/flaskstack", "/etc/nginx", "/etc/redis", "/etc/ssh"),
    *("/etc/sudoers.d", "/etc/systemd", "/run/dbus", "/run/log", "/run/systemd/private"),
]
# Data of Debian's packages below EMPTY: fonts, TeX and GeoIP.
PACKAGE_DATA = ["/var/lib/GeoIP", "/var/lib/ghostscript", "/var/lib/texmf"]
