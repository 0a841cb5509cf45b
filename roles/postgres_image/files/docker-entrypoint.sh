#!/bin/sh
# Entry point of the Das Tern PostgreSQL image. It keeps the contract of the official image: POSTGRES_USER, POSTGRES_DB,
# POSTGRES_PASSWORD, POSTGRES_INITDB_ARGS (each also with _FILE), POSTGRES_INITDB_WALDIR, POSTGRES_HOST_AUTH_METHOD,
# PGDATA and /docker-entrypoint-initdb.d.
#
# A new cluster is built in $PGDATA/.init and renamed to $PGDATA/.ready when it is complete; its files then move up,
# PG_VERSION last. So whenever this script is killed, the next start either begins anew or finishes the move: an
# incomplete cluster is never served.
set -eu

say() { printf 'entrypoint: %s\n' "$*"; }
die() {
    printf 'entrypoint: %s\n' "$*" >&2
    exit 1
}

# value NAME DEFAULT: set NAME from NAME_FILE if that is given, else from NAME, else to DEFAULT.
value() {
    eval "given=\${$1:-} file=\${$1_FILE:-}"
    if [ -n "$file" ]; then
        [ -z "$given" ] || die "both $1 and $1_FILE are set; set one of them."
        [ -r "$file" ] || die "$1_FILE names $file, which $(id -un 2>/dev/null || id -u) can't read; mount it readable by uid 999."
        given=$(cat "$file")
    fi
    eval "$1=\${given:-\$2}"
    unset "$1_FILE" given file
}

# quoted WORD...: print the words as one string that a shell splits into the same words again.
quoted() {
    for word in "$@"; do
        printf "'"
        printf '%s' "$word" | sed "s/'/'\\\\''/g"
        printf "' "
    done
}

sql() {
    PGHOST=$socket PGPASSWORD=${POSTGRES_PASSWORD:-} \
        psql --no-psqlrc --no-password --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" "$@"
}

stop_on_failure() {
    status=$?
    [ "$status" -eq 0 ] && return
    trap - EXIT
    [ -f "$stage/postmaster.pid" ] && pg_ctl stop --pgdata "$stage" --mode immediate --silent || true
    rm -rf "$socket"
    say "initialisation failed; the next start begins it anew." >&2
    exit "$status"
}

finish_move() {
    for entry in "$ready"/* "$ready"/.[!.]*; do
        [ -e "$entry" ] || [ -L "$entry" ] || continue
        [ "${entry##*/}" = PG_VERSION ] || mv -f "$entry" "$PGDATA/"
    done
    sync "$PGDATA"
    [ ! -e "$ready/PG_VERSION" ] || mv -f "$ready/PG_VERSION" "$PGDATA/"
    rmdir "$ready"
    sync "$PGDATA"
}

initialise() {
    value POSTGRES_USER postgres
    value POSTGRES_DB "$POSTGRES_USER"
    value POSTGRES_PASSWORD ''
    value POSTGRES_INITDB_ARGS ''
    if [ -z "$POSTGRES_PASSWORD" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
        die "the data directory $PGDATA is empty and no password for its superuser is given." \
            "Set POSTGRES_PASSWORD_FILE to a mounted file that holds one (or POSTGRES_PASSWORD)." \
            "POSTGRES_HOST_AUTH_METHOD=trust lets everybody in without one."
    fi
    for entry in "$PGDATA"/* "$PGDATA"/.[!.]*; do
        [ -e "$entry" ] || continue
        case ${entry##*/} in
            .init | lost+found | .snapshot) ;;
            *) die "$PGDATA holds ${entry##*/} but no cluster (no PG_VERSION);" \
                "mount an empty volume, or set PGDATA to a directory below it." ;;
        esac
    done

    rm -rf "$stage" "$socket"
    mkdir "$stage"
    mkdir "$socket" || die "can't create $socket; a read-only root needs a tmpfs on /var/run/postgresql owned by uid 999."
    trap stop_on_failure EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
    set -- "$@"
    say "initialising a cluster in $PGDATA"
    if [ -n "$POSTGRES_PASSWORD" ]; then
        printf '%s\n' "$POSTGRES_PASSWORD"
    fi | eval 'initdb --pgdata "$stage" --username "$POSTGRES_USER" --auth-local trust --auth-host "$method" \
        ${POSTGRES_PASSWORD:+--pwfile /dev/stdin} \
        ${POSTGRES_INITDB_WALDIR:+--waldir "$POSTGRES_INITDB_WALDIR"} '"$POSTGRES_INITDB_ARGS"
    printf '\n# Every other address, as POSTGRES_HOST_AUTH_METHOD says.\nhost all all all %s\n' "$method" >>"$stage/pg_hba.conf"

    # The server of the initialisation only listens on a socket of its own, so nobody takes it for the real one.
    [ "$1" = postgres ] && shift
    pg_ctl start --pgdata "$stage" --wait --timeout 300 --silent --options "$(quoted "$@" \
        -c listen_addresses= -c "unix_socket_directories=$socket" -c archive_mode=off -c logging_collector=off)"
    if [ "$POSTGRES_DB" != postgres ]; then
        echo 'CREATE DATABASE :"name"' | sql --dbname postgres --set "name=$POSTGRES_DB"
    fi
    for script in /docker-entrypoint-initdb.d/*; do
        [ -e "$script" ] || continue
        case $script in
            *.sh)
                say "running $script"
                (
                    # Scripts see the cluster at its present place.
                    export PGDATA="$stage" PGHOST="$socket" PGPASSWORD="$POSTGRES_PASSWORD" \
                        POSTGRES_USER POSTGRES_DB POSTGRES_PASSWORD
                    if [ -x "$script" ]; then exec "$script"; else exec bash -e "$script"; fi
                ) ;;
            *.sql)
                say "running $script"
                sql --dbname "$POSTGRES_DB" --file "$script" ;;
            *.sql.gz)
                say "running $script"
                gzip --test "$script"
                gzip --decompress --stdout "$script" | sql --dbname "$POSTGRES_DB" ;;
            *) say "ignoring $script" ;;
        esac
    done
    pg_ctl stop --pgdata "$stage" --wait --timeout 300 --mode fast --silent
    rm -rf "$socket"
    trap - EXIT INT TERM

    mv "$stage" "$ready"
    finish_move
    say "initialised; starting the server"
}

if [ "$#" -eq 0 ] || [ "${1#-}" != "$1" ]; then
    set -- postgres "$@"
fi

serve=false
if [ "$1" = postgres ]; then
    serve=true
    for word in "$@"; do
        case $word in
            -V | --version | -\? | --help | --describe-config | -C) serve=false ;;
        esac
    done
fi

if [ "$serve" = true ]; then
    PGDATA=${PGDATA:-/var/lib/postgresql/data}
    stage=$PGDATA/.init
    ready=$PGDATA/.ready
    socket=/var/run/postgresql/.init
    if [ "$(id -u)" -eq 0 ]; then
        # PostgreSQL refuses to run as root: give the directories to its own user and continue as that user.
        mkdir -p "$PGDATA" /var/run/postgresql
        find "$PGDATA" /var/run/postgresql ! -user postgres -exec chown -h postgres:postgres {} +
        exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
    fi
    mkdir -p "$PGDATA" 2>/dev/null || true
    [ -w "$PGDATA" ] || die "$PGDATA can't be written by uid $(id -u);" \
        "use a named volume, or give the directory to it: chown $(id -u):$(id -g) DIRECTORY."
    chmod 0700 "$PGDATA" 2>/dev/null || true
    if [ -d "$ready" ]; then
        say "finishing an initialisation that was interrupted at its last step"
        finish_move
    elif [ ! -s "$PGDATA/PG_VERSION" ]; then
        initialise "$@"
    fi
    unset POSTGRES_PASSWORD
fi
exec "$@"
