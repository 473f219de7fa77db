#!/bin/sh
# A Docker engine on a machine where none answers: Debian's, installed and started as root, and left running.
# Exit code 1, and why, where that cannot be; tests that need an engine are skipped then, unless ATOLL_REQUIRE_DOCKER=1.
log=/var/log/atoll-dockerd.log

say() { echo "docker: $*" >&2; }

[ "$(id -u)" = 0 ] || { say "no engine answers, and only root can start one: images are not tested"; exit 1; }
if ! command -v dockerd >/dev/null || ! [ -x /bin/busybox ]; then
    command -v apt-get >/dev/null || { say "no engine answers, and there is no apt-get to install one"; exit 1; }
    say "installing Debian's docker.io and busybox-static"
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy docker.io busybox-static || exit 1
fi
if ! timeout 20 docker info >/dev/null 2>&1; then
    if [ -d /run/systemd/system ] && systemctl start docker; then
        say "started the service docker"
    else
        say "starting dockerd; its log is $log"
        setsid nohup dockerd >"$log" 2>&1 </dev/null &
    fi
fi
for _ in $(seq 60); do
    timeout 20 docker info >/dev/null 2>&1 && exit 0
    sleep 1
done
say "dockerd does not answer; the end of $log:"
tail -n 5 "$log" >&2
exit 1
