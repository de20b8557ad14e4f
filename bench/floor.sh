#!/bin/bash
# The floor of bench/converge: the minimum that any tool must do, without checks, tuning or security.
# It installs the packages that Flaskstack's roles install ($PACKAGES), the sample app's locked dependencies,
# and starts the same services. Runs as root on a fresh server of its own, with an archive of the app as input.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

mkdir -p /srv/sample/app
tar --extract --directory=/srv/sample/app
read -ra packages <<<"${PACKAGES:?}"
apt-get update -qq
apt-get install -qq --no-install-recommends "${packages[@]}" python3-venv >/dev/null # Flaskstack uses uv

useradd --system --home-dir /srv/sample sample
python3 -m venv /srv/sample/venv
/srv/sample/venv/bin/pip install --quiet --require-hashes --requirement /srv/sample/app/requirements.lock

password=$(openssl rand -hex 20)
mysql <<SQL
CREATE DATABASE sample CHARACTER SET utf8mb4;
CREATE USER sample@localhost IDENTIFIED BY '$password';
GRANT ALL ON sample.* TO sample@localhost;
SQL
for instance in cache queue; do
    cat >/etc/redis/redis-$instance.conf <<CONF
port 0
unixsocket /run/redis-$instance/redis.sock
unixsocketperm 777
dir /var/lib/redis
dbfilename $instance.rdb
CONF
done
cat >/srv/sample/environment <<ENV
DATABASE_URL=mysql+pymysql://sample:$password@/sample?unix_socket=/run/mysqld/mysqld.sock&charset=utf8mb4
CACHE_URL=unix:///run/redis-cache/redis.sock
QUEUE_URL=unix:///run/redis-queue/redis.sock
SECRET_KEY=$(openssl rand -hex 20)
ENV
systemd-run --quiet --wait --pipe --working-directory /srv/sample/app \
    --property EnvironmentFile=/srv/sample/environment /srv/sample/venv/bin/alembic upgrade head
unit() {
    cat >"/etc/systemd/system/sample-$1.service" <<UNIT
[Service]
User=sample
WorkingDirectory=/srv/sample/app
EnvironmentFile=/srv/sample/environment
ExecStart=/srv/sample/venv/bin/$2
[Install]
WantedBy=multi-user.target
UNIT
}
unit web "gunicorn --bind unix:/srv/sample/web.sock --workers 3 sample_app.web:create_app()"
unit worker "python -m sample_app.worker"
unit scheduler "python -m sample_app.scheduler"
chown sample: /srv/sample
cat >/etc/nginx/sites-enabled/default <<'CONF'
server {
    listen 80 default_server;
    location / { proxy_pass http://unix:/srv/sample/web.sock; }
}
CONF
systemctl daemon-reload
systemctl --quiet enable --now redis-server@cache redis-server@queue sample-web sample-worker sample-scheduler
systemctl reload nginx
