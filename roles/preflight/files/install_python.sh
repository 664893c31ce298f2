# Ansible's modules need Python: minimal images of Debian come without.
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 022

# As in plugins/modules/packages.py: a machine in its first minutes has apt's lists locked.
apt() {
    tries=0
    while ! said=$(apt-get -q -y "$@" 2>&1); do
        tries=$((tries + 1))
        case $said in *"Could not get lock"*) ;; *) tries=60 ;; esac
        if [ $tries -ge 60 ]; then
            printf '%s\n' "$said"
            exit 1
        fi
        sleep 5
    done
}

(apt update) || true # a repository of somebody else's may be dead
apt install --no-install-recommends python3
