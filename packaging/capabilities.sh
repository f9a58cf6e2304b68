#!/bin/sh
# Decides which users may run netkat without being root. scripts/package puts this file in front of
# the maintainer scripts; scripts/install sources it.

netkat_say() { echo "netkat: $*" >&2; }

# netkat_decided PROGRAM: succeeds if the administrator has set owner and mode
# (dpkg-statoverride(1)).
netkat_decided() {
    command -v dpkg-statoverride >/dev/null && dpkg-statoverride --list "$1" >/dev/null 2>&1
}

# netkat_revoke PROGRAM: removes the capabilities and lets every user execute PROGRAM. chown(2)
# removes capabilities, too.
netkat_revoke() {
    setcap -r "$1" 2>/dev/null || :
    netkat_decided "$1" || { chown 0:0 "$1" && chmod 755 "$1"; }
}

# netkat_restrict PROGRAM: lets only root and group netkat execute PROGRAM. Creates the group.
netkat_restrict() {
    if ! getent group netkat >/dev/null; then
        if command -v groupadd >/dev/null; then groupadd --system netkat; else addgroup -S netkat; fi || return
    fi
    chown 0:netkat "$1" && chmod 750 "$1"
}

# netkat_capabilities CHOICE PROGRAM: gives PROGRAM the owner, mode and capabilities of CHOICE (no,
# group or all; packaging/default), whatever it had before. On an error prints the reason, leaves no
# capabilities and fails. Setting the mode before the capabilities leaves no moment at which other
# users can execute a capable program.
netkat_capabilities() {
    netkat_revoke "$2" || return
    case $1 in
    no) return ;;
    all) ;;
    group | yes)
        if [ "$1" = yes ]; then netkat_say "CAPABILITIES=yes now means group"; fi
        if netkat_decided "$2"; then
            netkat_say "dpkg-statoverride decides which users may execute $2: set CAPABILITIES=all to give them capabilities"
            return 1
        fi
        netkat_restrict "$2" || {
            netkat_revoke "$2"
            netkat_say "could not give $2 to group netkat: only root can use it"
            return 1
        }
        ;;
    *)
        netkat_say "CAPABILITIES must be no, group or all, not \"$1\": only root can use it"
        return 1
        ;;
    esac
    setcap cap_net_raw,cap_net_admin,cap_bpf+p "$2" || {
        netkat_revoke "$2"
        netkat_say "could not set file capabilities: only root can use it"
        return 1
    }
}
