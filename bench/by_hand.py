"""A manual deploy of changed code, as the baseline of the deploy benchmarks."""

from __future__ import annotations

import tarfile
import tempfile

from servers import Server

# The lower bound for any tool: nothing is built, checked, watched or rolled back.
BY_HAND = r"""
set -e
cd /srv/sample
new=releases/by-hand
old=$(basename "$(readlink web.sock)" .sock)
slot=$(echo "$old" | tr ab ba)
mkdir $new
tar --extract --directory=$new
ln -s "$(readlink current/.venv)" $new/.venv
$new/.venv/bin/python -m compileall -qq $new || true
%s
ln -sfn ../$new instances/$slot
ln -sfn "../settings/$(basename "$(readlink /etc/sample/current)")" /etc/sample/slots/$slot
systemctl start sample-web@$slot.socket sample-web@$slot.service
python3 -c "
import socket
door = socket.socket(socket.AF_UNIX)
door.connect('/run/sample/$slot.sock')
door.send(b'GET /readyz HTTP/1.0\r\n\r\n')
assert b' 200 ' in door.recv(99)
"
ln -sfn $new current
ln -sfn /run/sample/$slot.sock web.sock
systemctl restart 'sample-worker@*' 'sample-scheduler@*'
systemctl stop sample-web@$old.socket sample-web@$old.service
rm instances/$old /etc/sample/slots/$old
"""
MIGRATE = r"""
mysqldump --single-transaction sample | gzip >/root/by-hand.sql.gz
flaskstack sample run --release by-hand alembic upgrade head 2>/dev/null
"""


def by_hand(server: Server, migrate: str = "") -> float:
    """Deploy the app manually; return the seconds it took."""
    with tempfile.TemporaryFile() as archive, tarfile.open(fileobj=archive, mode="w") as packed:
        packed.add(server.app, ".")
        packed.close()
        archive.seek(0)
        return server.ssh(BY_HAND % migrate, stdin=archive)
