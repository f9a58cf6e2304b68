#!/bin/sh
# Who may run netkat without being root. scripts/package puts this file in front of the maintainer scripts, and
# scripts/install reads it.

netkat_say() { echo "netkat: $*" >&2; }

# netkat_decided PROGRAM: whether the administrator has decided on owner and mode (dpkg-statoverride(1)).
netkat_decided() {
    command -v dpkg-statoverride >/dev/null && dpkg-statoverride --list "$1" >/dev/null 2>&1
}

# netkat_revoke PROGRAM: everybody may execute it, and it has no capabilities. chown(2) removes them, too.
netkat_revoke() {
    setcap -r "$1" 2>/dev/null || :
    netkat_decided "$1" || { chown 0:0 "$1" && chmod 755 "$1"; }
}

# netkat_restrict PROGRAM: nobody but root and the members of group netkat may execute it.
netkat_restrict() {
    if ! getent group netkat >/dev/null; then
        if command -v groupadd >/dev/null; then groupadd --system netkat; else addgroup -S netkat; fi || return
    fi
    chown 0:netkat "$1" && chmod 750 "$1"
}

# netkat_capabilities CHOICE PROGRAM: makes PROGRAM as CHOICE (no, group or all; packaging/default) wants it, whatever it
# was before. Fails, says why and leaves no capabilities where that can't be done. The mode comes first: at no moment does
# the capable program let in more than it should.
netkat_capabilities() {
    netkat_revoke "$2" || return
    case $1 in
    no) return ;;
    all) ;;
    group | yes)
        if [ "$1" = yes ]; then netkat_say "CAPABILITIES=yes means group by now"; fi
        if netkat_decided "$2"; then
            netkat_say "dpkg-statoverride decides who may execute $2: say CAPABILITIES=all if they are to have capabilities"
            return 1
        fi
        netkat_restrict "$2" || {
            netkat_revoke "$2"
            netkat_say "could not give $2 to group netkat: only root can use it"
            return 1
        }
        ;;
    *)
        netkat_say "CAPABILITIES is no, group or all, not \"$1\": only root can use it"
        return 1
        ;;
    esac
    setcap cap_net_raw,cap_net_admin,cap_bpf+ep "$2" || {
        netkat_revoke "$2"
        netkat_say "could not set file capabilities: only root can use it"
        return 1
    }
}
