"""What an attacker who runs code inside the app can reach.

The app has a backdoor (see converge.yml) that runs commands received over HTTP.
As a control, each attempt also runs outside the sandbox, as root or nobody, and must succeed.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from dataclasses import dataclass

import pytest

from helpers.wait import wait_for

# Create another app, files owned by root, and a network with cloud metadata, another host and
# a public site.
SETUP = """
set -e
useradd --system --home-dir /var/lib/otherapp otherapp
install -d -m 0750 -g otherapp /etc/otherapp /srv/otherapp/shared
install -d -m 0755 /srv/otherapp/releases/1
install -d -m 0750 -o otherapp /var/lib/otherapp
install -d -m 0700 /var/backups/confined
for file in /etc/otherapp/environment /etc/systemd/system/confined.service /root/confined \
    /srv/otherapp/releases/1/app.py /srv/otherapp/shared/upload /var/backups/confined/dump \
    /var/lib/otherapp/state /var/log/otherapp.log /var/spool/confined
do echo "# KEY=planted-secret" > $file; done
chmod 0640 /etc/otherapp/environment
echo planted-secret | systemd-cat -t confined
install -m 4755 /bin/cat /usr/local/bin/confined-cat
run() { systemd-run --quiet --collect --service-type=exec --unit="$@"; }
run confined-otherapp --uid=otherapp --setenv=KEY=planted-secret sleep infinity
run confined-elsewhere --property=PrivateNetwork=yes /usr/bin/python3 -c {listen}
elsewhere=$(systemctl show --property=MainPID --value confined-elsewhere)
ip link add confined type veth peer name eth0 netns $elsewhere
ip address add 10.213.0.1/24 dev confined
ip -6 address add fd00:213::1/64 dev confined nodad
ip link set confined up
nsenter --target $elsewhere --net sh -e <<'END'
for address in {addresses}; do
    case $address in *:*) flags=nodad ;; *) flags= ;; esac
    ip address add $address dev eth0 $flags
done
ip link set lo up
ip link set eth0 up
ip route add default dev eth0
ip -6 route add default dev eth0
END
for address in {addresses}; do ip route replace $address dev confined; done
"""
TEARDOWN = """
systemctl stop confined-elsewhere confined-otherapp
ip link delete confined 2>/dev/null
userdel otherapp
rm -rf /etc/otherapp /srv/otherapp /var/lib/otherapp /var/backups/confined \
    /var/log/otherapp.log /root/confined /var/spool/confined \
    /etc/systemd/system/confined.service /usr/local/bin/confined-cat
"""
ELSEWHERE = {
    "metadata": ("169.254.169.254", 80),
    "metadata over IPv6": ("fd00:ec2::254", 80),
    "another host's SSH": ("10.213.0.2", 22),
    "another host's SSH over IPv6": ("fd00:213::2", 22),
    "another host's MySQL": ("10.213.0.2", 3306),
}
INTERNET = ("198.51.100.7", 443)  # reserved for examples, but public for the egress rules
ADDRESSES = sorted({address for address, _ in (*ELSEWHERE.values(), INTERNET)})
LISTEN = """
import socket, selectors
waiting = selectors.DefaultSelector()
for port in (22, 80, 443, 3306):
    server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    waiting.register(server, 1)
while True:
    for key, _ in waiting.select():
        connection = key.fileobj.accept()[0]
        connection.sendall(b"planted-secret")
        connection.close()
"""


SUCCESS = "^REACHED"  # only at the start of a line, since a traceback may quote the code


def python(code: str) -> str:
    """Return a command that runs code."""
    return f"/usr/bin/python3 -c {shlex.quote(textwrap.dedent(code))}"


def connect(address: str, port: int) -> str:
    """Return a command that connects to an address and prints REACHED and the response."""
    return python(f"""
        import socket
        with socket.create_connection(({address!r}, {port}), timeout=3) as connection:
            print("REACHED", connection.recv(100))
    """)


def system_call(call: str) -> str:
    """Return a command that prints REACHED if a call of the C library succeeds."""
    return python(f"""
        import ctypes, os, sys, time
        library = ctypes.CDLL(None, use_errno=True)
        child = os.fork()
        if not child:
            time.sleep(2)
            os._exit(0)
        print("REACHED" if {call} == 0 else os.strerror(ctypes.get_errno()))
        os.kill(child, 9)
    """)


@dataclass
class Attempt:
    """A command, and the pattern in its output that shows success."""

    command: str
    evidence: str = "planted-secret"
    control: str = "root"  # user that succeeds outside the sandbox


def writing(folder: str) -> Attempt:
    """Return an attempt to write to a directory."""
    return Attempt(
        f"touch {folder}/confined-file && rm {folder}/confined-file && echo REACHED", SUCCESS
    )


PID = "$(systemctl show --property=MainPID --value confined-otherapp)"
ATTEMPTS = {
    "environment of another app": Attempt("cat /etc/otherapp/environment"),
    "code of another app": Attempt("cat /srv/otherapp/releases/1/app.py", control="nobody"),
    "uploads of another app": Attempt("cat /srv/otherapp/shared/upload"),
    "state of another app": Attempt("cat /var/lib/otherapp/state"),
    "log of another app": Attempt("cat /var/log/otherapp.log", control="nobody"),
    "names of other apps": Attempt("ls /srv /var/lib", "otherapp", control="nobody"),
    "unit of another app": Attempt("cat /etc/systemd/system/confined.service", control="nobody"),
    "files in the spool": Attempt("cat /var/spool/confined", control="nobody"),
    "environment of other processes": Attempt("cat /proc/[0-9]*/environ | tr '\\0' '\\n'"),
    "memory of another process": Attempt(
        python("""
            import glob
            for folder in glob.glob("/proc/[0-9]*"):
                try:
                    if open(folder + "/comm").read() == "sleep\\n":
                        start = int(open(folder + "/maps").readline().split("-")[0], 16)
                        memory = open(folder + "/mem", "rb")
                        memory.seek(start)
                        print("REACHED", memory.read(4))
                except OSError as error:
                    print(error)
        """),
        SUCCESS,
    ),
    "files of root": Attempt("cat /root/confined"),
    "files of the deployer": Attempt("cat /home/*/.ssh/authorized_keys", "ssh-"),
    "passwords of the system": Attempt("cat /etc/shadow", "root:"),
    # testssl.sh, which an audit installs, ships well-known private keys.
    "a private key below /etc": Attempt(
        "grep -rls --exclude-dir=testssl -e '^-----BEGIN [A-Z ]*PRIVATE KEY' /etc", "/etc/"
    ),
    "settings of the SSH server": Attempt("cat /etc/ssh/sshd_config", "^Include", control="nobody"),
    "settings of nginx": Attempt("cat /etc/nginx/nginx.conf", "http {", control="nobody"),
    "users of Redis": Attempt("cat /etc/redis/sample-queue.users", "^user sample"),
    "data of MySQL": Attempt("ls /var/lib/mysql", "ibdata1"),
    "data of Redis": Attempt("ls /var/lib/redis/sample-queue", "appendonly"),
    "backups": Attempt("cat /var/backups/confined/dump"),
    "the journal": Attempt("journalctl --no-pager -t confined"),
    "the system's bus": Attempt(
        "busctl call org.freedesktop.systemd1 / org.freedesktop.DBus.Peer Ping && echo REACHED",
        SUCCESS,
        "nobody",
    ),
    "systemd's own socket": Attempt(
        python("""
            import socket
            socket.socket(socket.AF_UNIX).connect("/run/systemd/private")
            print("REACHED")
        """),
        SUCCESS,
    ),
    "signal to another process": Attempt(
        "for process in $(seq 1 4000); do kill -0 $process 2>/dev/null && "
        "[ $process -lt $$ ] && [ $process -ne $PPID ] && stat -c %U /proc/$process; done",
        "^(root|mysql|otherapp)$",
    ),
    "tracing a process": Attempt(system_call("library.ptrace(16, child, 0, 0)"), SUCCESS, "nobody"),
    "mount": Attempt(
        "d=$(mktemp -d); mount -t tmpfs none $d && umount $d && echo REACHED", SUCCESS
    ),
    "namespace of users": Attempt("unshare --user --map-root-user echo REACHED", SUCCESS),
    "setuid program": Attempt("confined-cat /root/confined", control="nobody"),
    "making a setuid program": Attempt(
        "f=$(mktemp); chmod u+s $f && echo REACHED; rm $f", SUCCESS, "nobody"
    ),
    "running what was written": Attempt(
        "f=$(mktemp); cp /bin/echo $f; chmod +x $f; $f REACHED; rm $f", SUCCESS, "nobody"
    ),
    "making a device": Attempt(
        "mknod /tmp/confined-d c 1 3 && rm /tmp/confined-d && echo REACHED", SUCCESS
    ),
    "machine code made at run time": Attempt(
        python("import mmap; mmap.mmap(-1, 4096, prot=7); print('REACHED')"), SUCCESS, "nobody"
    ),
    "raw packets": Attempt(
        python("""
            import socket
            socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
            print("REACHED")
        """),
        SUCCESS,
    ),
    "settings of the kernel": Attempt(
        python("open('/proc/sys/kernel/hostname', 'r+'); print('REACHED')"), SUCCESS
    ),
    "control groups": Attempt(
        "mkdir /sys/fs/cgroup/confined && rmdir /sys/fs/cgroup/confined && echo REACHED", SUCCESS
    ),
    **{
        f"writing to {folder}": writing(folder)
        for folder in (
            *("/srv/sample/current/sample_app", "/srv/sample/current/.venv", "/srv/sample"),
            *("/etc/sample", "/etc/profile.d", "/usr/local/bin", "/run/sample", "/srv", "/var/lib"),
        )
    },
    **{name: Attempt(connect(*place)) for name, place in ELSEWHERE.items()},
    "SSH of the host itself": Attempt(connect("127.0.0.1", 22), SUCCESS),
}


def statement(text: str) -> str:
    """Return a command that runs an SQL statement with the app's login."""
    code = f"""
        import os, sqlalchemy
        with sqlalchemy.create_engine(os.environ["DATABASE_URL"]).connect() as connection:
            connection.execute(sqlalchemy.text({text!r}))
        print("REACHED")
    """
    return f"python -c {shlex.quote(textwrap.dedent(code))}"


STATEMENTS = {
    "rows": statement("SELECT COUNT(*) FROM notes"),
    "a new table": statement("CREATE TABLE confined (id INT)"),
    "another column": statement("ALTER TABLE notes ADD COLUMN confined INT"),
    "no more tables": statement("DROP TABLE notes"),
    "accounts": statement("SELECT * FROM mysql.user"),
    "a file of the database server": statement(
        "SELECT LOAD_FILE('/etc/passwd') INTO OUTFILE '/tmp/x'"
    ),
}


@dataclass
class Results:
    """The output of each attempt, by its name."""

    app: dict[str, str]
    control: dict[str, str]


def run_controls(host, user: str) -> dict[str, str]:
    """Run the attempts that have this control user on the host, and return each one's output."""
    commands = {name: one.command for name, one in ATTEMPTS.items() if one.control == user}
    script = "\n".join(f"({command}) 2>&1; printf '\\036'" for command in commands.values())
    who = "setpriv --reuid=nobody --regid=nogroup --clear-groups" if user == "nobody" else "env"
    done = host.run(f"cd / && {who} sh -c {shlex.quote(script)}")
    return dict(zip(commands, done.stdout.split("\x1e"), strict=False))


@pytest.fixture(scope="module")
def results(host, site):
    """Run all attempts inside the app and, as a control, outside it."""
    script = SETUP.replace("{listen}", shlex.quote(LISTEN))
    host.check_output(script.replace("{addresses}", " ".join(ADDRESSES)))
    try:
        probe = connect(*INTERNET)
        wait_for(lambda: "planted-secret" in host.run(probe).stdout, 20)
        commands = {name: attempt.command for name, attempt in ATTEMPTS.items()}
        output, items = {}, list((commands | {"internet": probe} | STATEMENTS).items())
        for start in range(0, len(items), 10):
            answer = site.post("/confined", json=dict(items[start : start + 10]), timeout=60)
            answer.raise_for_status()
            output |= answer.json()
        return Results(output, run_controls(host, "root") | run_controls(host, "nobody"))
    finally:
        host.run(TEARDOWN)


@pytest.mark.parametrize("name", ATTEMPTS)
def test_app_cannot_reach(results, name):
    """The attempt succeeds outside the sandbox and fails inside the app."""
    evidence = re.compile(ATTEMPTS[name].evidence, re.MULTILINE)
    assert evidence.search(results.control[name]), f"the control failed as {ATTEMPTS[name].control}"
    assert not evidence.search(results.app[name])


def test_app_reaches_public_addresses(results):
    """`app_network` allows them, which also proves that the test network works."""
    assert "planted-secret" in results.app["internet"]


def test_app_may_change_rows_and_not_tables(results):
    """The app's login has no rights to the schema."""
    assert "REACHED" in results.app["rows"]
    for name in STATEMENTS.keys() - {"rows"}:
        assert "denied" in results.app[name]


def test_migration_password_is_not_on_the_host(host, inventory):
    """Search the disk, processes and the journal. As a control, the app's password is found."""
    folder = inventory / "secrets"

    def found(secret: str) -> str:
        # sudo logs this command, so the pattern must not match itself.
        pattern = shlex.quote(f"[{secret[0]}]{re.escape(secret[1:])}")
        files = r"find / \( -path /proc -o -path /sys \) -prune -o -type f -print0"
        disk = f"{files} | xargs -0 grep -lasE {pattern}"
        memory = f"grep -laE {pattern} /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null"
        log = f"journalctl --no-pager | grep -E {pattern}"
        return host.run(f"{disk}; {memory}; {log}").stdout

    app = found((folder / "database.txt").read_text().strip())
    assert re.search(r"/etc/sample/settings/\w+/environment", app)
    assert "/environ\n" in app
    assert found((folder / "migration.txt").read_text().strip()) == ""
