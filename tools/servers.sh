#!/bin/sh
# Installs the LDAP servers that the tests run: OpenLDAP's slapd and Samba's Active Directory domain controller.
# Does nothing where they are there. Only the programs are wanted: no service is started or enabled, and no
# directory of the machine's own is made.
set -eu

packages='slapd ldap-utils
    samba samba-ad-dc samba-ad-provision samba-dsdb-modules samba-vfs-modules python3-samba winbind ldb-tools'
policy=/usr/sbin/policy-rc.d

fail() {
    printf 'error: %s\n%s\n' "$1" "$2" >&2
    exit 1
}

missing() {
    for package in $packages; do
        case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) in
            installed) ;;
            *) printf ' %s' "$package" ;;
        esac
    done
}

# As root, with the packages as arguments.
install_packages() {
    export DEBIAN_FRONTEND=noninteractive
    # Asked by the packages' scripts before each start of a service (invoke-rc.d(8)): 101 forbids it. A machine
    # that has such a file already knows why.
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        trap 'exit 1' HUP INT TERM
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    echo 'slapd slapd/no_configuration boolean true' | debconf-set-selections
    apt-get update -qq
    # Told only if it fails: the packages' scripts complain about each service that may not start.
    if ! said=$(apt-get install -qq -y -o DPkg::Lock::Timeout=300 --no-install-recommends "$@" 2>&1); then
        printf '%s\n' "$said" >&2
        exit 1
    fi
    # Nor at the next boot.
    if [ -d /run/systemd/system ]; then
        for unit in slapd smbd nmbd winbind samba-ad-dc; do
            systemctl disable --quiet "$unit" 2>/dev/null || true
        done
    fi
}

if [ "${1:-}" = --install ]; then
    shift
    install_packages "$@"
    exit
fi

command -v dpkg-query >/dev/null || fail 'the LDAP servers for the tests are packages of Debian, and this is none' \
    "run the tests in a container of Debian 12 or 13"
# shellcheck disable=SC2046 # one word for each package
set -- $(missing)
[ $# -gt 0 ] || exit 0

echo "Installing the LDAP servers for the tests: $*"
if [ "$(id -u)" -eq 0 ]; then
    sh "$0" --install "$@"
else
    command -v sudo >/dev/null && sudo -n sh "$0" --install "$@"
fi || fail 'the LDAP servers for the tests could not be installed' \
    "run this as root, then try again: sh tools/servers.sh"
