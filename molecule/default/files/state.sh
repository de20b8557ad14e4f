#!/bin/sh
# Print the state that a reboot must restore.
set -eu
app=$1
slot=$(basename "$(readlink "/srv/$app/web.sock")" .sock)
echo "release $(readlink "/srv/$app/current") in slot $slot"
systemctl list-units --all --plain --no-legend --type=service,socket,target,timer,path \
    "$app*" 'flaskstack*' 'redis-server@*' nginx.service mariadb.service fail2ban.service nftables.service \
    ssh.service 'apt-daily*' 'package-check*' | awk '$3 == "active" && $1 !~ /run-|flaskstack-lockout-guard/ { print "unit " $1 }'
systemctl list-unit-files --no-legend "$app*" 'flaskstack*' 'redis-server@*' nginx.service mariadb.service \
    fail2ban.service nftables.service | awk '{ print "unit file " $1, $2 }'
systemd-tmpfiles --cat-config | awk '$1 ~ /^[dD]!?$/ && $2 ~ /^\/(run|srv|tmp)\// { print $2 }' | sort -u |
    xargs stat --format 'folder %n %U:%G %a' 2>/dev/null || true # some are missing on some hosts
find /run -maxdepth 1 -type d \( -name "*$app*" -o -name mysqld -o -name flaskstack -o -name nginx -o -name fail2ban \) \
    -printf 'folder %p %u:%g %m\n'
stat --format 'socket %n %U:%G %a' "/run/$app/$slot.sock" "/run/redis-$app-cache/redis.sock" \
    "/run/redis-$app-queue/redis.sock" || true # a missing socket is a missing line
nft list tables | grep -v f2b | sed 's/^/firewall /'
nft --stateless list ruleset | grep -v elements | grep -v '^\s*[0-9a-f.:, ]* }' | sha256sum | sed 's/^/firewall /'
fail2ban-client status | tail -n 1 || true
swapon --show
readlink /etc/localtime
sysctl net.core.somaxconn net.ipv4.conf.all.accept_redirects
