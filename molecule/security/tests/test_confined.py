"""Somebody runs code of theirs inside the app. What do they get?

A version of sample_app that runs commands is deployed, and asked over HTTP to do what a burglar
would. Each attempt is also made as root, or as an ordinary user where that is enough, and must
succeed there: what fails for everybody proves nothing.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from dataclasses import dataclass

import pytest

from helpers.repository import ROOT
from helpers.wait import wait_for

OPEN_DOOR = '''

@blueprint.post("/confined")
def confined() -> ResponseReturnValue:
    """Run what somebody sends."""
    import subprocess

    from flask import request

    return {
        name: subprocess.run(
            ["sh", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=10,
            check=False,
        ).stdout[-4000:]
        for name, command in request.get_json().items()
    }
'''

# Another app, an operator's notes, and a network with a cloud's metadata, another host's SSH and a
# site of the internet.
STAGE = """
set -e
id neighbour 2>/dev/null || useradd --system --home-dir /var/lib/neighbour neighbour
install -d -m 0750 -g neighbour /etc/neighbour /srv/neighbour/shared
install -d -m 0755 /srv/neighbour/releases/1
install -d -m 0750 -o neighbour /var/lib/neighbour
install -d -m 0700 /var/backups/confined
for file in /etc/neighbour/environment /etc/systemd/system/confined.service /root/confined \
    /srv/neighbour/releases/1/app.py /srv/neighbour/shared/upload /var/backups/confined/dump \
    /var/lib/neighbour/state /var/log/neighbour.log /var/spool/confined
do echo "# KEY=treasure" > $file; done
chmod 0640 /etc/neighbour/environment
echo treasure | systemd-cat -t confined
install -m 4755 /bin/cat /usr/local/bin/confined-cat
systemctl stop confined-victim confined-elsewhere confined-neighbour 2>/dev/null || true
ip link delete confined 2>/dev/null || true
run() { systemd-run --quiet --collect --service-type=exec --unit="$@"; }
run confined-victim sleep infinity
run confined-neighbour --uid=neighbour --setenv=KEY=treasure sleep infinity
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
STRIKE = """
systemctl stop confined-victim confined-elsewhere confined-neighbour
ip link delete confined 2>/dev/null
userdel neighbour
rm -rf /etc/neighbour /srv/neighbour /var/lib/neighbour /var/backups/confined \
    /var/log/neighbour.log /root/confined /var/spool/confined \
    /etc/systemd/system/confined.service /usr/local/bin/confined-cat
"""
ELSEWHERE = {
    "metadata": ("169.254.169.254", 80),
    "metadata over IPv6": ("fd00:ec2::254", 80),
    "another host's SSH": ("10.213.0.2", 22),
    "another host's SSH over IPv6": ("fd00:213::2", 22),
    "another host's MySQL": ("10.213.0.2", 3306),
}
INTERNET = ("198.51.100.7", 443)  # reserved for examples, and public to whoever asks for rules
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
        connection.sendall(b"treasure")
        connection.close()
"""


GOT = "^REACHED"  # not as a part of code that an error shows


def python(code: str) -> str:
    """Return a command that runs code."""
    return f"/usr/bin/python3 -c {shlex.quote(textwrap.dedent(code))}"


def connect(address: str, port: int) -> str:
    """Return a command that says what an address answers, or REACHED if it answers at all."""
    return python(f"""
        import socket
        with socket.create_connection(({address!r}, {port}), timeout=3) as connection:
            print("REACHED", connection.recv(100))
    """)


def system_call(call: str) -> str:
    """Return a command that makes a call of the C library and says REACHED if it may."""
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
    """What somebody tries, and what shows that they got it."""

    command: str
    loot: str = "treasure"
    control: str = "root"  # who gets it


def writing(folder: str) -> Attempt:
    """Return the attempt to leave a file in a folder."""
    return Attempt(
        f"touch {folder}/confined-file && rm {folder}/confined-file && echo REACHED", GOT
    )


PID = "$(systemctl show --property=MainPID --value confined-neighbour)"
ATTEMPTS = {
    "environment of another app": Attempt("cat /etc/neighbour/environment"),
    "code of another app": Attempt("cat /srv/neighbour/releases/1/app.py", control="nobody"),
    "uploads of another app": Attempt("cat /srv/neighbour/shared/upload"),
    "state of another app": Attempt("cat /var/lib/neighbour/state"),
    "log of another app": Attempt("cat /var/log/neighbour.log", control="nobody"),
    "names of other apps": Attempt("ls /srv /var/lib", "neighbour", control="nobody"),
    "unit of another app": Attempt("cat /etc/systemd/system/confined.service", control="nobody"),
    "files in the spool": Attempt("cat /var/spool/confined", control="nobody"),
    "environment of other processes": Attempt("cat /proc/[0-9]*/environ | tr '\\0' '\\n'"),
    "other processes": Attempt(
        "cat /proc/[0-9]*/cmdline | tr '\\0' ' '", "nginx: master", "nobody"
    ),
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
        GOT,
    ),
    "files of root": Attempt("cat /root/confined"),
    "files of the deployer": Attempt("cat /home/*/.ssh/authorized_keys", "ssh-"),
    "passwords of the system": Attempt("cat /etc/shadow", "root:"),
    # testssl.sh, which an audit installs, brings keys that everybody has.
    "a private key below /etc": Attempt(
        "grep -rls --exclude-dir=testssl -e '^-----BEGIN [A-Z ]*PRIVATE KEY' /etc", "/etc/"
    ),
    "keys of the SSH server": Attempt("cat /etc/ssh/ssh_host_*_key", "PRIVATE KEY"),
    "settings of the SSH server": Attempt("cat /etc/ssh/sshd_config", "^Include", control="nobody"),
    "settings of nginx": Attempt("cat /etc/nginx/nginx.conf", "http {", control="nobody"),
    "settings of Redis": Attempt("cat /etc/redis/redis-sample-queue.conf", "^unixsocket"),
    "users of Redis": Attempt("cat /etc/redis/sample-queue.users", "^user sample"),
    "data of MySQL": Attempt("ls /var/lib/mysql", "ibdata1"),
    "data of Redis": Attempt("ls /var/lib/redis/sample-queue", "appendonly"),
    "backups": Attempt("cat /var/backups/confined/dump"),
    "the journal": Attempt("journalctl --no-pager -t confined"),
    "order to systemd": Attempt("systemctl restart confined-victim && echo REACHED", GOT),
    "the system's bus": Attempt(
        "busctl call org.freedesktop.systemd1 / org.freedesktop.DBus.Peer Ping && echo REACHED",
        GOT,
        "nobody",
    ),
    "systemd's own socket": Attempt(
        python("""
            import socket
            socket.socket(socket.AF_UNIX).connect("/run/systemd/private")
            print("REACHED")
        """),
        GOT,
    ),
    "signal to another process": Attempt(
        "for process in $(seq 1 4000); do kill -0 $process 2>/dev/null && "
        "[ $process -lt $$ ] && [ $process -ne $PPID ] && stat -c %U /proc/$process; done",
        "^(root|mysql|neighbour)$",
    ),
    "tracing a process": Attempt(system_call("library.ptrace(16, child, 0, 0)"), GOT, "nobody"),
    "mount": Attempt("d=$(mktemp -d); mount -t tmpfs none $d && umount $d && echo REACHED", GOT),
    "namespace of users": Attempt("unshare --user --map-root-user echo REACHED", GOT),
    "namespace of mounts": Attempt("unshare --mount echo REACHED", GOT),
    "setuid program": Attempt("confined-cat /root/confined", control="nobody"),
    "sudo": Attempt("sudo -n echo REACHED", GOT),
    "making a setuid program": Attempt(
        "f=$(mktemp); chmod u+s $f && echo REACHED; rm $f", GOT, "nobody"
    ),
    "running what was written": Attempt(
        "f=$(mktemp); cp /bin/echo $f; chmod +x $f; $f REACHED; rm $f", GOT, "nobody"
    ),
    "making a device": Attempt(
        "mknod /tmp/confined-d c 1 3 && rm /tmp/confined-d && echo REACHED", GOT
    ),
    "machine code made at run time": Attempt(
        python("import mmap; mmap.mmap(-1, 4096, prot=7); print('REACHED')"), GOT, "nobody"
    ),
    "raw packets": Attempt(
        python("""
            import socket
            socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
            print("REACHED")
        """),
        GOT,
    ),
    "packets of the link": Attempt(
        python("import socket; socket.socket(17, socket.SOCK_RAW, 0); print('REACHED')"), GOT
    ),
    "settings of the kernel": Attempt(
        python("open('/proc/sys/kernel/hostname', 'r+'); print('REACHED')"), GOT
    ),
    "control groups": Attempt(
        "mkdir /sys/fs/cgroup/confined && rmdir /sys/fs/cgroup/confined && echo REACHED", GOT
    ),
    **{
        f"writing to {folder}": writing(folder)
        for folder in (
            *("/srv/sample/current/sample_app", "/srv/sample/current/.venv", "/srv/sample"),
            *("/etc/sample", "/etc/profile.d", "/usr/local/bin", "/run/sample", "/srv", "/var/lib"),
        )
    },
    **{name: Attempt(connect(*place)) for name, place in ELSEWHERE.items()},
    "SSH of the host itself": Attempt(connect("127.0.0.1", 22), GOT),
}


def statement(text: str) -> str:
    """Return a command that has MySQL run a statement for the app."""
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
    "a file of the server's": statement("SELECT LOAD_FILE('/etc/passwd') INTO OUTFILE '/tmp/x'"),
}


@dataclass
class Stage:
    """What everybody got."""

    burglar: dict[str, str]
    root: dict[str, str]


def everybody(host, runs: str) -> dict[str, str]:
    """Return what each attempt gives root or nobody on the host, all of them in one go."""
    wanted = {
        name: attempt.command for name, attempt in ATTEMPTS.items() if attempt.control == runs
    }
    script = "\n".join(f"({command}) 2>&1; printf '\\036'" for command in wanted.values())
    who = "setpriv --reuid=nobody --regid=nogroup --clear-groups" if runs == "nobody" else "env"
    done = host.run(f"cd / && {who} sh -c {shlex.quote(script)}")
    return dict(zip(wanted, done.stdout.split("\x1e"), strict=False))


@pytest.fixture(scope="module")
def stage(host, site, operator, version):
    """Deploy the app with the open door, let everybody try, and put the former release back."""
    diagnostics = "sample_app/web/diagnostics.py"
    text = (ROOT / "sample_app" / diagnostics).read_text()
    done = operator.deploy(version(diagnostics, new=text + OPEN_DOOR))
    assert done.code == 0, done.output
    play = STAGE.replace("{listen}", shlex.quote(LISTEN))
    host.check_output(play.replace("{addresses}", " ".join(ADDRESSES)))
    try:
        probe = connect(*INTERNET)
        wait_for(lambda: "treasure" in host.run(probe).stdout, 20)
        commands = {name: attempt.command for name, attempt in ATTEMPTS.items()}
        answers = ask(site, commands | {"internet": probe} | STATEMENTS)
        yield Stage(answers, everybody(host, "root") | everybody(host, "nobody"))
    finally:
        host.run(STRIKE)
        back = operator.play("rollback")
        assert back.code == 0, back.output


def ask(site, commands: dict[str, str]) -> dict[str, str]:
    """Return what the app says, a few commands a request."""
    said, items = {}, list(commands.items())
    for start in range(0, len(items), 10):
        answer = site.post("/confined", json=dict(items[start : start + 10]), timeout=60)
        answer.raise_for_status()
        said |= answer.json()
    return said


@pytest.mark.parametrize("name", ATTEMPTS)
def test_out_of_reach(stage, name):
    """What root gets, or anybody outside of the sandbox, is not there for code in the app."""
    loot = re.compile(ATTEMPTS[name].loot, re.MULTILINE)
    assert loot.search(stage.root[name]), f"not even {ATTEMPTS[name].control} got it"
    assert not loot.search(stage.burglar[name])


def test_what_is_allowed_is_reached(stage):
    """A site of the internet, as `app_network` says; so the network is there."""
    assert "treasure" in stage.burglar["internet"]


def test_rows_are_the_apps_and_tables_are_not(stage):
    """With the app's own login."""
    assert "REACHED" in stage.burglar["rows"]
    for name in STATEMENTS.keys() - {"rows"}:
        assert "denied" in stage.burglar[name]


def test_migration_password_is_nowhere(host, inventory):
    """Neither on the disk, nor in a process, nor in the journal, where the app's own is found."""
    folder = inventory / "secrets"

    def found(secret: str) -> str:
        # The pattern does not match itself; sudo logs these tests' own commands.
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
